// What lbctl has said so far.

const store = {sections: {}, services: new Map(), total: null, end: 0, stamp: 0};

let versions = 0;

class Series {
  constructor() {
    this.requests = new Float32Array(POINTS);
    this.errors = new Float32Array(POINTS);
    this.p50 = new Float32Array(POINTS).fill(-1);
    this.p99 = new Float32Array(POINTS).fill(-1);
    this.minute50 = this.minute99 = -1;
  }
  // take takes all points, in columns: requests, errors, p50, p99, [p50, p99 of the last minute].
  take([requests, errors, p50, p99, minute]) {
    const fill = (column, values, empty) => {
      column.fill(empty);
      if (values) column.set(values.slice(-POINTS), POINTS - Math.min(POINTS, values.length));
    };
    fill(this.requests, requests, 0);
    fill(this.errors, errors, 0);
    fill(this.p50, p50, -1);
    fill(this.p99, p99, -1);
    [this.minute50, this.minute99] = minute;
    this.sum();
    return this;
  }
  push(requests, errors, p50, p99, minute50, minute99) {
    const add = (column, value) => { column.copyWithin(0, 1); column[POINTS - 1] = value; };
    add(this.requests, requests);
    add(this.errors, errors);
    add(this.p50, p50);
    add(this.p99, p99);
    this.minute50 = minute50;
    this.minute99 = minute99;
    this.sum();
  }
  // sum makes the figures of the last minute.
  sum() {
    let requests = 0, errors = 0;
    for (let n = POINTS - MINUTE; n < POINTS; n++) { requests += this.requests[n]; errors += this.errors[n]; }
    this.rate = requests / MINUTE;
    this.errorRate = errors / MINUTE;
    this.share = requests > 0 ? errors / requests : null;
    this.version = ++versions;
  }
}

// take takes over a frame of the feed; whole is true for a snapshot, which replaces everything.
function take(frame, whole) {
  clockOffset = frame.now - Date.now();
  store.now = frame.now;
  const before = whole ? new Map([...store.services.values()].map(s => [s.name, s.state + s.level])) : null;
  if (whole) {
    store.services.clear();
    store.total = null;
    store.end = 0;
  }
  Object.assign(store.sections, frame.sections);
  for (const row of frame.rows || []) {
    const old = store.services.get(row.id);
    const was = old ? old.state + old.ownLevel : before && before.get(row.name);
    const service = Object.assign(old || {series: new Series().take([0, 0, 0, 0, [-1, -1]])}, {why: '', more: 0, default: false, port: 0}, row);
    service.ownLevel = row.level;
    service.changed = was !== undefined && was !== row.state + row.level ? performance.now() : service.changed ?? -Infinity;
    service.words = [row.name, row.protocol, row.state, ...row.routes, row.default ? 'default' : '', service.why].join(' ').toLowerCase();
    store.services.set(row.id, service);
  }
  for (const id of frame.gone || []) store.services.delete(id);
  if (frame.reset) {
    for (const s of store.services.values()) s.series.take([0, 0, 0, 0, [-1, -1]]);
    store.total = null;
    store.end = 0;
  }
  if (frame.points) takePoints(frame);
  if (frame.total) store.total = new Series().take(frame.total);
  for (const [id, columns] of Object.entries(frame.series || {})) store.services.get(+id)?.series.take(columns);
  if (frame.end) store.end = frame.end;
  const started = Date.parse(store.sections.status?.started);
  firstKnown = started ? Math.max(0, Math.min(POINTS - 1, POINTS - Math.ceil((store.end - started) / STEP))) : 0;
  for (const s of store.services.values()) judge(s);
  store.stamp++;
}

// takePoints adds one point to every series: those that are not mentioned had no request.
function takePoints(frame) {
  const said = new Set(), p = frame.points;
  for (let n = 0; n < p.length; n += 7) {
    said.add(p[n]);
    store.services.get(p[n])?.series.push(p[n + 1], p[n + 2], p[n + 3], p[n + 4], p[n + 5], p[n + 6]);
  }
  for (const [id, s] of store.services) if (!said.has(id)) s.series.push(0, 0, -1, -1, -1, -1);
  store.total ||= new Series().take([0, 0, 0, 0, [-1, -1]]);
  store.total.push(...frame.totalPoint);
  store.end = frame.pointEnd;
}

// Which share of failed requests is trouble, if there are enough requests to say so.
const ERRORS_WARN = 0.01, ERRORS_BAD = 0.05, ERRORS_FROM = 10;
const RANK = {'': 0, info: 1, warn: 2, bad: 3};

// errorLevel judges the share of a minute's requests that failed.
function errorLevel(series) {
  if (series.share == null || series.errorRate * 60 < 1 || series.rate * 60 < ERRORS_FROM) return '';
  return series.share >= ERRORS_BAD ? 'bad' : series.share >= ERRORS_WARN ? 'warn' : '';
}

function judge(s) {
  s.errorLevel = errorLevel(s.series);
  s.level = RANK[s.errorLevel] > RANK[s.ownLevel] ? s.errorLevel : s.ownLevel;
}

const figuresOff = () => store.sections.figures?.why || '';

const inTrouble = s => RANK[s.level] >= 2;

// unitOf is what clients have with a service: a TCP service has sessions, and p50 and p99 are their lengths.
const unitOf = s => s.protocol === 'tcp' ? 'session' : 'request';

// wayTo says how requests reach a service.
function wayTo(s) {
  const ways = s.routes.filter(r => r !== '*' || !s.default).map(r => r.startsWith('*/') || r.startsWith('*=/') ? r.slice(1) : r);
  if (s.default) ways.push('default');
  if (s.port) ways.push('port ' + s.port);
  return (s.protocol || 'unknown protocol') + ' · ' + (ways.join(', ') || 'no route') + (s.more ? ` and ${s.more} more` : '');
}
