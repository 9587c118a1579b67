// Curves of the last five minutes, as SVG.

const POINTS = 60, STEP = 5000, MINUTE = 12;

// firstKnown is the first point since lbctl runs: what was before is not known.
let firstKnown = 0;

// path draws values as a line; a negative value is a gap.
function path(values, max, width, height) {
  let d = '', drawing = false;
  const scale = (height - 2) / (max || 1), dx = width / (POINTS - 1);
  for (let n = firstKnown; n < POINTS; n++) {
    const v = values[n];
    if (v < 0) { drawing = false; continue; }
    const x = (n * dx).toFixed(1), y = (height - 1 - Math.min(v, max) * scale).toFixed(1);
    d += drawing ? `L${x} ${y}` : `M${x} ${y}`;
    if (!drawing && (n + 1 === POINTS || values[n + 1] < 0)) d += 'h.01'; // one value alone is a dot
    drawing = true;
  }
  return d;
}

function area(line, width, height) {
  return line.replace(/[^M]+/g, run => {
    const first = run.match(/^[\d.]+/), last = run.match(/.*L([\d.]+) /);
    return first && last ? `${run}L${last[1]} ${height}L${first[0]} ${height}Z` : '';
  }).replace(/M(?!\d)/g, '');
}

function largest(...all) {
  let max = 0;
  for (const values of all) for (let n = 0; n < POINTS; n++) if (values[n] > max) max = values[n];
  return max;
}

// A curve is a line over an area, and perhaps a second line below it.
class Curve {
  constructor(kind, second) {
    this.area = svg('path', {class: 'area'});
    this.line = svg('path', {});
    this.second = second ? svg('path', {class: 'second'}) : null;
    this.node = svg('svg', {class: 'spark', viewBox: '0 0 100 28', preserveAspectRatio: 'none', 'aria-hidden': 'true'},
      ...(this.second ? [this.second] : []), this.area, this.line);
    this.kind = kind;
    this.drawn = '';
  }
  draw(values, max, second) {
    const line = path(values, max, 100, 28);
    const quiet = line === '';
    className(this.node, 'spark ' + (quiet || max === 0 ? 'quiet' : this.kind));
    const d = quiet ? 'M0 27H100' : line;
    if (d === this.drawn && !second) return;
    this.drawn = d;
    this.line.setAttribute('d', d);
    this.area.setAttribute('d', quiet || max === 0 ? '' : area(line, 100, 28));
    if (this.second) this.second.setAttribute('d', second ? path(second, max, 100, 28) : '');
  }
}

// errorShares are the errors as a share of the requests.
function errorShares(series, into) {
  for (let n = 0; n < POINTS; n++) into[n] = series.requests[n] > 0 ? series.errors[n] / series.requests[n] : 0;
  return into;
}
const scratch = new Float32Array(POINTS);

// A chart is a large curve with its scale.
class Chart {
  constructor(title, keys, format) {
    this.format = format;
    this.lines = keys.map(k => svg('path', {class: k.kind}));
    this.area = svg('path', {class: 'area'});
    this.max = el('span');
    this.now = el('b');
    this.note = el('span');
    const drawing = svg('svg', {class: 'spark', viewBox: '0 0 100 84', preserveAspectRatio: 'none', 'aria-hidden': 'true'},
      svg('path', {class: 'axis', d: 'M0 1H100M0 42H100M0 83H100'}), this.area, ...this.lines);
    this.node = el('figure.chart', el('figcaption', el('span', title + ' ', this.now, this.note), el('span.grow'),
      keys.length > 1 && keys.map(k => el('span.key', el('i' + (k.kind ? '.' + k.kind : '')), k.name))),
      drawing, el('div.scale', el('span', '5 min ago'), this.max, el('span', 'now')));
  }
  draw(now, ...values) {
    const max = largest(...values);
    values.forEach((v, n) => {
      const line = path(v, max, 100, 84);
      this.lines[n].setAttribute('d', line);
      if (n === 0) this.area.setAttribute('d', max > 0 ? area(line, 100, 84) : '');
    });
    text(this.max, max > 0 ? 'at most ' + this.format(max) : 'nothing in five minutes');
    text(this.now, now);
  }
}
