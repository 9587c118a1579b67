// Numbers and times for people.

const grouped = new Intl.NumberFormat('en', {maximumFractionDigits: 0});

function rate(x) {
  if (x == null) return '–';
  if (x === 0) return '0';
  if (x < 0.05) return '<0.1';
  if (x < 99.95) return x.toFixed(1);
  if (x < 99950) return grouped.format(x);
  return x < 999500 ? Math.round(x / 1000) + 'k' : (x / 1e6).toFixed(1) + 'M';
}

function percent(share) {
  if (share == null) return '–';
  const x = share * 100;
  if (x === 0) return '0 %';
  if (x < 0.1) return '<0.1 %';
  if (x < 9.95) return x.toFixed(1) + ' %';
  return (x > 99 && x < 100 ? 99 : Math.round(x)) + ' %';
}

function millis(x) {
  if (x == null || x < 0) return '–';
  if (x < 0.995) return x.toFixed(2) + ' ms';
  if (x < 9.95) return x.toFixed(1) + ' ms';
  if (x < 999.5) return Math.round(x) + ' ms';
  return x < 9950 ? (x / 1000).toFixed(1) + ' s' : Math.round(x / 1000) + ' s';
}

function bytes(x) {
  return x < 1 << 20 ? Math.ceil(x / 1024) + ' KiB' : x < 10 * (1 << 20) ? (x / (1 << 20)).toFixed(1) + ' MiB' : Math.round(x / (1 << 20)) + ' MiB';
}

function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 100) return s + ' s';
  if (s < 6000) return Math.round(s / 60) + ' min';
  if (s < 48 * 3600) return Math.round(s / 3600) + ' h';
  return Math.round(s / 86400) + ' days';
}

const plural = (n, word) => grouped.format(n) + ' ' + word + (n === 1 ? '' : 's');

// took is the length of an event, given in seconds.
const took = s => !s ? '' : s < 100 ? millis(s * 1000) : duration(s * 1000);

const two = n => String(n).padStart(2, '0');
const timeOfDay = d => `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
const day = d => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;

// clock is the time of day, with the date unless it is today.
function clock(t) {
  const d = new Date(t), today = new Date(serverNow());
  return day(d) === day(today) ? timeOfDay(d) : day(d) + ' ' + timeOfDay(d);
}

const ago = t => { const past = serverNow() - t; return past < 1500 ? 'now' : duration(past) + ' ago'; };

// when is an element that says how long ago something was, and goes on saying it: see refreshTimes.
function when(t) {
  const at = typeof t === 'number' ? t : Date.parse(t);
  if (!at || at < 0) return null;
  const node = el('time', {datetime: new Date(at).toISOString(), title: clock(at)}, ago(at));
  node._at = at;
  return node;
}

function refreshTimes() {
  for (const node of document.getElementsByTagName('time')) if (node._at) text(node, ago(node._at));
}

// serverNow is the time of lbctl's clock, in milliseconds: the browser's may be wrong.
let clockOffset = 0;
const serverNow = () => Date.now() + clockOffset;
