// The list of services. Only the rows in sight are in the document, so that it does not matter how
// many there are.

const list = {
  order: [],         // services as they are shown
  tops: [0],         // where each begins, and where the last ends
  rows: new Map(),   // rows in the document by id
  open: new Set(),   // names of opened services
  heights: new Map(),// of their details, by name
  sort: 'trouble',
  words: [],
  troubleOnly: false,
  cursor: '',        // name of the service with the focus
  sortedAt: 0,
  rowHeight: 56,
};

const COLUMNS = [
  {sort: 'name', label: 'Service'}, {label: 'Instances'}, {sort: 'rate', label: 'Requests/s', num: true},
  {sort: 'errors', label: 'Errors', num: true}, {sort: 'p99', label: 'p50, p99', latency: true},
];
const ASCENDING = {name: true};

function makeHead() {
  const row = el('div.head', {role: 'row'}, el('span', {role: 'columnheader'}, el('span.sr', 'State')));
  list.headCells = COLUMNS.map(c => {
    const label = c.sort ? el('button', {type: 'button', title: 'Sort by ' + c.sort}, c.label) : c.label;
    const cell = el('span', {role: 'columnheader'}, label);
    if (c.sort === 'name') cell.append(list.orderNote = el('span.order'));
    if (c.num) { cell.className = 'figure'; cell.replaceChildren(el('span.num', label)); }
    if (c.latency) { cell.className = 'figure latency'; cell.replaceChildren(el('span.num', 'p50'), el('span.num', el('button', {type: 'button', title: 'Sort by p99'}, 'p99'))); }
    if (c.sort) cell.querySelector('button').onclick = () => sortBy(c.sort);
    return cell;
  });
  row.append(...list.headCells, el('span', {role: 'columnheader'}, el('span.sr', 'Details')));
  $('head').className = '';
  $('head').replaceChildren(row);
}

function sortBy(key) {
  list.sort = list.sort === key && key !== 'trouble' ? 'trouble' : key;
  $('sort').value = list.sort;
  arrange(true);
}

const compareNames = (a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
const COMPARE = {
  trouble: (a, b) => RANK[b.level] - RANK[a.level] || compareNames(a, b),
  name: compareNames,
  rate: (a, b) => b.series.rate - a.series.rate || compareNames(a, b),
  errors: (a, b) => (b.series.share || 0) - (a.series.share || 0) || b.series.errorRate - a.series.errorRate || compareNames(a, b),
  p99: (a, b) => b.series.minute99 - a.series.minute99 || compareNames(a, b),
};

// arrange filters and sorts. Rows must not move under a pointer or a focus while figures change, so
// without force the order stays for a while.
function arrange(force) {
  const held = list.sort !== 'trouble' && list.sort !== 'name' && performance.now() - list.sortedAt < 10000;
  const busy = $('rows').matches(':hover') || $('rows').contains(document.activeElement);
  let all = [...store.services.values()];
  const troubled = all.filter(inTrouble).length;
  if (list.troubleOnly) all = all.filter(s => inTrouble(s) || list.open.has(s.name));
  if (list.words.length) all = all.filter(s => list.words.every(w => s.words.includes(w)));
  if (!force && (held || busy)) {
    const at = new Map(list.order.map((s, n) => [s.name, n]));
    all.sort((a, b) => (at.get(a.name) ?? 1e9) - (at.get(b.name) ?? 1e9) || COMPARE[list.sort](a, b));
  } else {
    all.sort(COMPARE[list.sort]);
    list.sortedAt = performance.now();
  }
  list.order = all;
  place();
  COLUMNS.forEach((c, n) => attribute(list.headCells[n], 'aria-sort', c.sort && c.sort === list.sort ? (ASCENDING[c.sort] ? 'ascending' : 'descending') : null));
  text(list.orderNote, list.sort === 'trouble' ? '· trouble first' : '');
  const size = store.services.size;
  text($('services-n'), all.length === size ? grouped.format(size) : `${grouped.format(all.length)} of ${grouped.format(size)}`);
  text($('trouble-n'), grouped.format(troubled));
  attribute($('table'), 'aria-rowcount', String(all.length + 1));
  showEmpty(all.length, size);
}

// place computes where each row begins.
function place() {
  const tops = list.tops = new Float64Array(list.order.length + 1);
  list.order.forEach((s, n) => {
    tops[n + 1] = tops[n] + list.rowHeight + (list.open.has(s.name) ? list.heights.get(s.name) || 0 : 0);
  });
  $('rows').style.height = tops[list.order.length] + 'px';
  drawSoon();
}

let drawing = 0;
function drawSoon() { drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); }); }

// rowAt returns the row at a height.
function rowAt(y) {
  let low = 0, high = list.order.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list.tops[middle + 1] <= y) low = middle + 1; else high = middle;
  }
  return low;
}

const OVERSCAN = 400; // pixels above and below what is in sight

// draw brings the rows in sight into the document, in their order, and up to date.
function draw() {
  const rows = $('rows');
  if (!rows.offsetParent) return;
  const top = -rows.getBoundingClientRect().top;
  const from = rowAt(top - OVERSCAN), to = Math.min(list.order.length, rowAt(top + innerHeight + OVERSCAN) + 1);
  const wanted = new Map();
  for (let n = from; n < to; n++) wanted.set(list.order[n].id, n);
  const cursor = list.order.findIndex(s => s.name === list.cursor);
  if (cursor >= 0 && list.rows.get(list.order[cursor].id)?.node.contains(document.activeElement)) wanted.set(list.order[cursor].id, cursor); // keeps the focus
  for (const [id, row] of list.rows) if (!wanted.has(id)) { row.remove(); list.rows.delete(id); }
  let before = rows.firstChild;
  for (const [id, n] of [...wanted].sort((a, b) => a[1] - b[1])) {
    let row = list.rows.get(id);
    if (!row) { row = new Row(store.services.get(id)); list.rows.set(id, row); }
    if (row.node === before) before = before.nextSibling;
    else rows.insertBefore(row.node, before);
    row.place(n);
    row.draw(list.order[n]);
  }
}

class Row {
  constructor(s) {
    this.name = s.name;
    this.mark = el('span');
    this.title = el('button.name', {type: 'button'});
    this.pill = el('span');
    this.sub = el('div');
    this.pips = el('span.pips', {role: 'cell'});
    this.rate = el('span'); this.error = el('span'); this.p50 = el('span.num'); this.p99 = el('span.num');
    this.curves = {rate: new Curve(''), error: new Curve('errors'), latency: new Curve('', true)};
    this.line = el('div.line', {role: 'row'},
      el('span', {role: 'cell'}, this.mark),
      el('div.first', {role: 'cell'}, el('div.title', this.title, this.pill), this.sub),
      this.pips,
      el('span.figure.rate', {role: 'cell'}, el('span.l', 'Req/s'), this.rate, this.curves.rate.node),
      el('span.figure.error', {role: 'cell'}, el('span.l', 'Errors'), this.error, this.curves.error.node),
      el('span.figure.latency', {role: 'cell'}, this.p50, el('span.l', 'p99'), this.p99, this.curves.latency.node),
      el('span.chevron-cell', {role: 'cell'}, chevron()));
    this.mark.parentNode.classList.add('mark-cell');
    this.node = el('div', this.line);
    this.line.onclick = e => { if (!getSelection()?.toString() || e.target === this.title) toggle(this.name); };
    this.title.onfocus = () => { list.cursor = this.name; };
  }
  place(n) {
    if (this.top !== list.tops[n]) { this.top = list.tops[n]; this.node.style.transform = `translateY(${this.top}px)`; }
    attribute(this.line, 'aria-rowindex', String(n + 2));
  }
  draw(s) {
    const open = list.open.has(s.name), x = s.series;
    className(this.node, 'item' + (open ? ' open' : '') + (performance.now() - s.changed < 2000 ? ' changed' : ''));
    attribute(this.title, 'aria-expanded', String(open));
    if (open && !this.details) { this.details = detailsOf(s.name); this.node.append(this.details.node); }
    if (!open && this.details) { this.details.node.remove(); this.details = null; }
    if (this.details) this.details.draw(s);
    const words = list.words.join(' ');
    if (this.drawn === store.stamp && this.words === words) return;
    this.drawn = store.stamp;
    this.words = words;
    className(this.mark, 'mark ' + s.level);
    attribute(this.mark, 'title', LEVEL_WORDS[s.level]);
    replace(this.title, [s.name, words], () => highlighted(s.name, list.words));
    attribute(this.title, 'title', s.name);
    const state = s.state !== 'fresh' ? s.state : s.ownLevel === 'info' ? 'maintenance' : s.in === 0 ? 'no traffic' : '';
    text(this.pill, state);
    className(this.pill, state ? 'pill ' + (s.ownLevel || 'none') : '');
    const why = s.why || (s.errorLevel ? `${percent(x.share)} of its ${unitOf(s)}s fail` : '');
    replace(this.sub, [why || wayTo(s), words], () => highlighted(why || wayTo(s), list.words));
    className(this.sub, 'sub ' + (why ? s.level : ''));
    attribute(this.sub, 'title', why || null);
    this.drawPips(s);
    const off = figuresOff(), none = x.minute99 < 0 && x.rate === 0;
    text(this.rate, off ? '–' : rate(x.rate));
    className(this.rate, 'num' + (x.rate === 0 ? ' zero' : ''));
    text(this.error, off || none ? '–' : percent(x.share));
    className(this.error, 'num ' + (s.errorLevel || (x.share ? '' : 'zero')));
    text(this.p50, off ? '–' : millis(x.minute50));
    text(this.p99, off ? '–' : millis(x.minute99));
    className(this.p99, 'num' + (none ? ' zero' : ''));
    if (this.figures !== x.version) {
      this.figures = x.version;
      this.curves.rate.draw(x.requests, largest(x.requests));
      const shares = errorShares(x, scratch);
      this.curves.error.draw(shares, Math.max(0.02, largest(shares)) * (largest(shares) > 0 ? 1 : 0));
      this.curves.latency.draw(x.p99, largest(x.p99), x.p50);
    }
  }
  // drawPips shows each instance as a bar, hollow if it is out on purpose.
  drawPips(s) {
    const shown = `${s.in}/${s.of} ${s.pips}`;
    if (this.shownPips === shown) return;
    this.shownPips = shown;
    const most = 14;
    let pips = s.pips;
    if (pips.length > most) { // in proportion, and none of them lost
      const kinds = [...'uwxmo'].map(k => [k, pips.split(k).length - 1]).filter(([, n]) => n);
      const shares = kinds.map(([k, n]) => [k, Math.max(1, Math.round(n / pips.length * most))]);
      while (shares.reduce((sum, [, n]) => sum + n, 0) > most) shares.reduce((a, b) => b[1] > a[1] ? b : a)[1]--;
      pips = shares.map(([k, n]) => k.repeat(n)).join('');
    }
    const drawing = svg('svg', {width: Math.max(0, pips.length * 6 - 2), height: 14, 'aria-hidden': 'true'});
    [...pips].forEach((k, n) => drawing.append(k === 'm' || k === 'o'
      ? svg('rect', {class: k, x: n * 6 + .6, y: .6, width: 2.8, height: 12.8, rx: 1.2})
      : svg('rect', {class: k, x: n * 6, y: 14 - PIP_HEIGHTS[k], width: 4, height: PIP_HEIGHTS[k], rx: 1.2})));
    this.pips.replaceChildren(el('span.l', 'Instances'), drawing, el('span', `${s.in}/${s.of}`));
    attribute(this.pips, 'title', `${s.in} of ${s.of} get traffic`);
  }
  remove() {
    if (this.details) this.details.node.remove();
    this.node.remove();
  }
}

// PIP_HEIGHTS tell without colours whether an instance serves, serves though something is wrong, or
// fails.
const PIP_HEIGHTS = {u: 14, w: 10, x: 5};

const LEVEL_WORDS = {'': 'fine', info: 'on purpose', warn: 'not as it should be', bad: 'trouble'};

// toggle opens or closes a service.
function toggle(name, only) {
  if (list.open.has(name)) close(name);
  else {
    list.open.add(name);
    history.replaceState(null, '', '#' + encodeURIComponent(name));
    fetchDetails(name);
  }
  place();
}

function close(name) {
  list.open.delete(name);
  dropDetails(name);
  if (linked() === name) history.replaceState(null, '', '#/services');
}

// focusRow moves the focus to a row, and the row into sight.
function focusRow(n) {
  if (!list.order.length) return;
  n = Math.max(0, Math.min(list.order.length - 1, n));
  list.cursor = list.order[n].name;
  scrollToRow(n);
  draw();
  const row = list.rows.get(list.order[n].id);
  row?.title.focus({preventScroll: true});
}

function scrollToRow(n, toTop) {
  const rows = $('rows').getBoundingClientRect();
  const bar = document.querySelector('.bar').offsetHeight + ($('lost').hidden ? 0 : $('lost').offsetHeight) + 8;
  const top = rows.top + list.tops[n], bottom = top + list.rowHeight;
  if (top < bar || toTop) scrollBy({top: top - bar, behavior: 'instant'});
  else if (bottom > innerHeight - 8) scrollBy({top: bottom - innerHeight + 8, behavior: 'instant'});
}

const cursorRow = () => list.order.findIndex(s => s.name === list.cursor);
