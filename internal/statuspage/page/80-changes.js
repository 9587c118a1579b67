// What happened: generations and the servers that nginx fetched, with their difference.

const KINDS = {
  applied: ['applied', ''], moved: ['fetched', ''], rejected: ['refused', 'bad'], rolled_back: ['rolled back', 'bad'],
  no_way_back: ['rollback failed', 'bad'], failed: ['failed', 'bad'], nginx_down: ['nginx down', 'bad'], nginx_up: ['nginx up', ''],
  nginx_master_gone: ['master gone', 'bad'], nginx_master_back: ['master back', ''],
  drift: ['drift corrected', 'warn'], rollback: ['rollback', 'warn'], resume: ['resumed', 'warn'], reread: ['read again', 'none'],
  ejected: ['ejected', 'warn'], readmitted: ['readmitted', ''],
  panic: ['panic', 'bad'], held: ['held', 'warn'], quarantined: ['quarantined', 'bad'], stale: ['stale', 'warn'],
  last_known_good: ['last known good', 'warn'], recovered: ['recovered', ''],
  consul_down: ['Consul down', 'bad'], consul_up: ['Consul up', ''], started: ['started', 'none'], stopped: ['stopped', 'none'],
};
// Those that name services or instances, and say why they are so.
const OF_SERVICES = ['ejected', 'readmitted', 'panic', 'held', 'quarantined', 'stale', 'last_known_good', 'recovered'];

const opened = new Map(); // opened events: their bodies by key

const keyOf = e => e.time + e.kind + e.generation;

function changeText(e) {
  const usual = (e.kind === 'applied' || e.kind === 'moved') && e.change;
  if (usual || !e.reason) return e.change || '';
  if (!e.change) return e.reason;
  return OF_SERVICES.includes(e.kind) ? `${e.change} (${e.reason})` : `${e.reason} (${e.change})`;
}

function drawChanges() {
  const events = store.sections.events;
  if (!events) return;
  replace($('changes-body'), [events.map(keyOf), [...opened.keys()]], () => events.length
    ? el('div.card', events.map(eventOf))
    : el('div.card.empty', el('h3', 'Nothing has happened yet'), el('p', 'Each generation that nginx gets is listed here, with what it changed.')));
}

function eventOf(e) {
  const [word, level] = KINDS[e.kind] || [e.kind, 'none'], key = keyOf(e), isOpen = opened.has(key);
  const button = el('button', {type: 'button', 'aria-expanded': String(isOpen)},
    when(e.time), el('span.kind', el('span.pill' + (level ? '.' + level : ''), word)),
    el('span.text', el('span.number', e.generation ? '#' + e.generation : ''), changeText(e)),
    el('span.took', took(e.took_seconds)), chevron());
  button.onclick = () => { if (isOpen) opened.delete(key); else opened.set(key, bodyOf(e)); drawChanges(); };
  return el('div.event' + (isOpen ? '.open' : ''), button, isOpen ? opened.get(key) : null);
}

// bodyOf is what an opened event shows: why, who left, and the difference of the generations.
function bodyOf(e) {
  const body = el('div.body');
  const line = (name, value) => value && body.append(el('p', el('span.dim', name + ' '), value));
  line('at', clock(Date.parse(e.time)));
  line('why', e.reason);
  for (const l of e.left || []) line('left', `${l.service}: ${l.id} on ${l.node}, ${l.reason}`);
  if (e.from && e.generation && e.from !== e.generation) {
    const place = el('div.dim', 'Loading the difference …');
    body.append(place);
    fetchDiff(e.from, e.generation).then(node => place.replaceWith(node), error => place.replaceWith(el('p.dim', error.message)));
  } else if (e.kind === 'moved') line('', 'nginx fetched the servers by DNS: its files did not change.');
  return body;
}

const MOST_FILES = 12, MOST_LINES = 400;

async function fetchDiff(from, to) {
  const answer = await fetch(`/v1/diff?from=${from}&to=${to}`, {signal: AbortSignal.timeout(20000)}).catch(() => { throw new Error('lbctl does not answer.'); });
  const diff = await answer.json();
  if (!answer.ok) throw new Error(`There is no difference to show: ${diff.error}.`);
  if (!diff.files.length) return el('p.dim', `Generations ${from} and ${to} have the same files.`);
  const command = `lbctl diff ${from} ${to}`;
  const parts = diff.files.slice(0, MOST_FILES).map(file => {
    const lines = file.diff.replace(/\n$/, '').split('\n').slice(2);
    return el('div', el('p.file', file.name, el('span.n', `+${file.added} −${file.removed}`)),
      el('pre.diff', {tabindex: '0', 'aria-label': 'Difference of ' + file.name}, lines.slice(0, MOST_LINES).map(l => el('span' + (l[0] === '+' ? '.add' : l[0] === '-' ? '.del' : l[0] === '@' ? '.at' : ''), l || ' '))),
      lines.length > MOST_LINES && el('p.dim', `${lines.length - MOST_LINES} more lines: `, el('code', command)));
  });
  if (diff.files.length > MOST_FILES) parts.push(el('p.dim', `${diff.files.length - MOST_FILES} more files: `, el('code', command)));
  return el('div', parts);
}
