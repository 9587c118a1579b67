// An opened service: its curves and its instances.

const details = new Map(); // by name

function detailsOf(name) {
  let d = details.get(name);
  if (!d) details.set(name, d = new Details(name));
  return d;
}

function dropDetails(name) {
  const d = details.get(name);
  if (d) { sizes.unobserve(d.node); d.node.remove(); }
  details.delete(name);
  list.heights.delete(name);
}

// Details may have any height; the rows below follow it.
const sizes = new ResizeObserver(entries => {
  for (const entry of entries) list.heights.set(entry.target._name, entry.target.offsetHeight);
  place();
});

const MOST_INSTANCES = 50;

class Details {
  constructor(name) {
    this.name = name;
    const isTCP = [...store.services.values()].some(s => s.name === name && unitOf(s) === 'session');
    this.requests = new Chart(isTCP ? 'Sessions' : 'Requests', [{kind: '', name: isTCP ? 'sessions' : 'requests'}, {kind: 'errors', name: 'errors'}], x => rate(x) + '/s');
    this.latency = new Chart(isTCP ? 'Duration' : 'Latency', [{kind: '', name: 'p99'}, {kind: 'second', name: 'p50'}], millis);
    this.facts = el('div.facts');
    this.charts = el('div.charts', this.requests.node, this.latency.node);
    this.body = el('tbody');
    this.more = el('button.button', {type: 'button'});
    this.more.onclick = e => { e.stopPropagation(); this.all = true; this.drawInstances(); };
    this.table = el('div.wide', el('table.instances', {'aria-label': 'Instances of ' + name}, el('thead', el('tr',
      ['Instance', 'State', 'Weight', 'Share of traffic', isTCP ? 'Sessions/s' : 'Req/s', 'Errors', 'p99', 'Last error'].map((h, n) => el('th' + ([2, 4, 5, 6].includes(n) ? '.r' : ''), {scope: 'col'}, h)))), this.body));
    this.message = el('p.dim', 'Loading the instances …');
    this.node = el('div.opened', this.facts, this.charts, this.message, this.table, this.more, el('p.hints'));
    this.node._name = name;
    this.table.hidden = this.more.hidden = true;
    this.rows = new Map();
    sizes.observe(this.node);
  }

  draw(s) {
    const x = s.series, off = figuresOff();
    this.charts.hidden = !!off;
    if (!off && this.version !== x.version) {
      this.version = x.version;
      this.requests.draw(`${rate(x.rate)}/s, ${x.share == null ? 'no ' + unitOf(s) : percent(x.share) + ' fail'}`, x.requests, x.errors);
      this.latency.draw(x.minute99 < 0 ? 'no ' + unitOf(s) : `p50 ${millis(x.minute50)}, p99 ${millis(x.minute99)}`, x.p99, x.p50);
    }
    replace(this.node.lastChild, s.name, () => [
      el('span', `Its ${unitOf(s)}s: `, el('code', `lbctl logs -f --service ${s.name}`)),
      el('span', 'As JSON: ', el('a', {href: '/v1/services/' + encodeURIComponent(s.name)}, 'service'), ', ', el('a', {href: `/v1/services/${encodeURIComponent(s.name)}/policy`}, 'policy'))]);
  }

  // take takes over an answer of GET /v1/recent.
  take(answer) {
    this.answer = answer;
    this.message.hidden = true;
    const s = answer.service;
    replace(this.facts, [s.reason, s.problems, s.routes, s.since, s.state, s.maintenance, s.lacking_generation], () => this.makeFacts(s));
    text(this.requests.note, answer.in_flight == null ? '' : `, ${grouped.format(answer.in_flight)} in flight`);
    this.drawInstances();
  }

  makeFacts(s) {
    const lines = [], said = new Set();
    const line = (level, ...content) => lines.push(el('p.why', mark(level), el('span', content)));
    if (s.reason) { line(s.state === 'panic' || s.state === 'quarantined' || s.lacking_generation ? 'bad' : 'warn', el('b', s.state === 'fresh' ? '' : s.state + ': '), s.reason, ' ', when(s.since)); said.add(s.reason); }
    if (s.maintenance) line('info', 'In maintenance by its policy: nginx itself answers' + (s.maintenance.whole ? '' : ' ' + (s.maintenance.paths || []).join(', ')) + ', because of ' + s.maintenance.by.join(' and '));
    for (const p of s.problems) if (!said.has(p)) line('warn', p);
    const ways = s.routes.filter(r => r.host || r.path || r.method || r.headers || !s.default).map(r => (r.method ? r.method + ' ' : '') + (r.host || '') + (r.exact ? '=' : '') + (r.path || (r.host ? '' : '/')) + (r.headers ? ` [${r.headers}]` : ''));
    if (s.default) ways.push('default: what matches no route');
    if (s.port) ways.push('port ' + s.port);
    const most = 12;
    lines.push(el('div.chips', {'aria-label': 'Routes'}, ways.slice(0, most).map(w => el('span.chip', w)), ways.length > most && el('span.dim', `and ${ways.length - most} more`), !ways.length && el('span.dim', 'no route leads to it')));
    return lines;
  }

  drawInstances() {
    const {service, figures} = this.answer;
    const all = service.instances.map((i, n) => ({i, f: figures ? figures[n] : null}));
    // Of very many, those with something to say come first.
    const shown = this.all || all.length <= MOST_INSTANCES ? all : all.sort((a, b) => worth(b) - worth(a)).slice(0, MOST_INSTANCES);
    const known = new Set();
    let before = this.body.firstChild;
    for (const {i, f} of shown) {
      const key = i.node + '\n' + i.id + '\n' + i.port;
      known.add(key);
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, row = new InstanceRow());
      if (row.node === before) before = before.nextSibling;
      else this.body.insertBefore(row.node, before);
      row.draw(i, f);
    }
    for (const [key, row] of this.rows) if (!known.has(key)) { row.node.remove(); this.rows.delete(key); }
    this.table.hidden = !all.length;
    this.more.hidden = shown.length === all.length;
    text(this.more, `Show all ${grouped.format(all.length)} instances`);
    if (!all.length) { this.message.hidden = false; text(this.message, 'It has no instance.'); }
  }

  fail(why) {
    this.message.hidden = false;
    text(this.message, 'Its instances are not known: ' + why);
  }
}

const worth = ({i, f}) => (i.in_rotation ? 0 : 4) + (i.reason ? 2 : 0) + (f && f.errors ? 1 : 0);

class InstanceRow {
  constructor() {
    const cell = (label, ...classes) => el('td' + classes.map(c => '.' + c).join(''), {'data-l': label});
    this.address = el('div.mono'); this.id = el('div.id');
    this.mark = el('span', {'aria-hidden': 'true'}); this.word = el('b'); this.reason = el('div.reason');
    this.weight = cell('Weight', 'r'); this.share = cell('Share of traffic', 'nowrap');
    this.rate = cell('Req/s', 'r'); this.errors = cell('Errors', 'r'); this.p99 = cell('p99', 'r');
    this.last = el('td.last.dim');
    this.meter = el('i'); this.percent = el('span');
    this.share.append(el('span.meter', {'aria-hidden': 'true'}, this.meter), this.percent);
    this.node = el('tr', el('td', this.address, this.id),
      el('td', el('div.state', this.mark, el('div', this.word, this.reason))), this.weight, this.share, this.rate, this.errors, this.p99, this.last);
  }
  draw(i, f) {
    text(this.address, i.address.includes(':') ? `[${i.address}]:${i.port}` : `${i.address}:${i.port}`);
    text(this.id, [i.id, i.node && 'on ' + i.node, i.version].filter(Boolean).join(' · '));
    const [level, word] = instanceState(i);
    className(this.mark, 'mark ' + level);
    text(this.word, word);
    text(this.reason, reasonOf(i, word));
    text(this.weight, String(i.weight));
    const share = f ? f.share : null;
    this.meter.style.width = (share || 0) * 100 + '%';
    text(this.percent, percent(share));
    text(this.rate, f ? rate(f.requests) : '–');
    const failing = f && f.requests > 0 ? f.errors / f.requests : null;
    text(this.errors, f ? (failing == null ? '–' : percent(failing)) : '–');
    className(this.errors, 'r num ' + (failing >= ERRORS_BAD ? 'bad' : failing >= ERRORS_WARN ? 'warn' : ''));
    text(this.p99, f ? millis(f.p99) : '–');
    replace(this.last, f?.last_error || null, () => f?.last_error ? [f.last_error.what + ' ', when(f.last_error.at)] : []);
  }
}

// reasonOf is why an instance is in its state, without what the state says already.
const reasonOf = (i, word) => (i.reason || '').replace(/^in maintenance(: |$)/, word === 'maintenance' ? '' : '$&').replace(/^a check is critical(: |$)/, word === 'critical' ? '' : '$&').replace(/^ejected: /, word === 'ejected' ? '' : '$&');

function instanceState(i) {
  if (i.in_rotation) return i.held ? ['warn', 'held'] : [i.reason ? 'warn' : '', i.status];
  if (i.ejected) return ['bad', 'ejected'];
  if (i.status === 'critical') return ['bad', 'critical'];
  if (i.status === 'maintenance') return ['none', 'maintenance'];
  return ['none', 'no traffic'];
}

// fetchDetails asks for the instances of an opened service.
async function fetchDetails(name) {
  const d = detailsOf(name);
  if (d.asking) return;
  d.asking = true;
  try {
    const answer = await fetch('/v1/recent?service=' + encodeURIComponent(name), {signal: AbortSignal.timeout(10000)});
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    d.take(body);
  } catch (e) {
    d.fail(e instanceof TypeError ? 'lbctl does not answer' : e.message);
  } finally {
    d.asking = false;
  }
}
