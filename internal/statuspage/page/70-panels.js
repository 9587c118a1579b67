// What is above and beside the list: the verdict, figures at a glance, what needs attention, and
// the system.

const STATE_LEVELS = {serving: '', starting: 'info', pending: 'info', frozen: 'warn', degraded: 'bad', down: 'bad'};

function statusLevel() {
  const status = store.sections.status;
  if (!status) return 'none';
  const level = STATE_LEVELS[status.state] ?? 'warn';
  return level === '' && store.sections.problems?.list.length ? 'warn' : level;
}

function drawVerdict() {
  const {status, about} = store.sections;
  if (!status) return;
  const level = statusLevel();
  className($('verdict'), 'verdict card ' + level);
  className($('verdict-mark'), 'mark big ' + level);
  const [first, ...others] = status.summary.split('; ');
  text($('summary'), capital(first.replace(/, with \d+ problems?: .*/, '')));
  const nginx = status.nginx, held = status.state === 'serving' ? heldBack() : others.length ? capital(others.join('; ')) + '.' : '';
  replace($('summary-detail'), [held, nginx.since], () => [el('span', held + ' '), nginx.since && status.state !== 'down' ? el('span', 'Since ', clockElement(nginx.since), '.') : ''].filter(Boolean));
  text($('node'), about?.node ? about.node : '');
  const shape = {'': '<circle cx="8" cy="8" r="6" fill="#0b7a63"/>', info: '<circle cx="8" cy="8" r="5" fill="none" stroke="#2459c4" stroke-width="3"/>',
    warn: '<path d="M8 1l7 13H1z" fill="#d98a0b"/>', bad: '<path d="M8 1l7 7-7 7-7-7z" fill="#cf3a2c"/>', none: '<circle cx="8" cy="8" r="5" fill="none" stroke="#8d99ad" stroke-width="2"/>'};
  const lost = link.state !== 'live';
  attribute($('icon'), 'href', 'data:image/svg+xml,' + encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">${shape[lost ? 'none' : level]}</svg>`));
  document.title = (lost ? '? ' : level === '' || level === 'info' ? '' : status.state === 'serving' ? '▲ ' : '◆ ') + 'lbctl' + (about?.node ? ' · ' + about.node : '') + (lost ? ' · no news' : '');
}

const capital = s => /^(nginx|lbctl)/.test(s) ? s : s.charAt(0).toUpperCase() + s.slice(1);

// heldBack counts what is not as Consul says; "Needs attention" tells of each.
function heldBack() {
  const count = {};
  for (const s of store.services.values()) if (s.state !== 'fresh') count[s.state] = (count[s.state] || 0) + 1;
  const words = Object.keys(count).sort().reverse().map(k => `${count[k]} ${k === 'panic' ? 'in panic' : k}`);
  return words.length ? `Not as in Consul: ${words.join(', ')}.` : '';
}
const clockElement = t => el('span', clock(Date.parse(t)) + ', ', when(t));

class Tile {
  constructor(label, curve) {
    this.value = el('span'); this.unit = el('small'); this.under = el('div.s');
    this.curve = curve;
    this.node = el('div.tile', el('div.k', label), el('div.v', this.value, this.unit), curve ? curve.node : el('span'), this.under);
  }
  draw(value, under, level, unit) {
    text(this.value, value);
    text(this.unit, unit || '');
    if (typeof under === 'string') { this.under._shows = null; text(this.under, under); attribute(this.under, 'title', under); }
    else { this.under._text = null; replace(this.under, under.shows, under.make); }
    className(this.node, 'tile ' + (level || ''));
  }
}

const tiles = {
  requests: new Tile('Requests', new Curve('')), errors: new Tile('Errors', new Curve('errors')), p99: new Tile('p99', new Curve('', true)),
  connections: new Tile('Connections'), instances: new Tile('Instances'), generation: new Tile('Generation'),
};

function drawTiles() {
  const {status, connections} = store.sections, total = store.total, off = figuresOff();
  if (!status) return;
  if (!$('tiles').firstChild) $('tiles').append(...Object.values(tiles).map(t => t.node));
  if (off || !total) {
    const why = off ? 'the access log is off' : 'no figures yet';
    for (const t of [tiles.requests, tiles.errors, tiles.p99]) { t.draw('–', why); t.curve.draw(new Float32Array(POINTS), 0); }
  } else {
    const most = largest(total.requests), shares = errorShares(total, scratch), worst = largest(shares);
    tiles.requests.draw(rate(total.rate), most > 0 ? 'at most ' + rate(most) + '/s in 5 min' : 'none in 5 min', '', '/s');
    tiles.requests.curve.draw(total.requests, most);
    tiles.errors.draw(percent(total.share), total.share == null ? 'no request in the last minute' : rate(total.errorRate) + '/s', errorLevel(total));
    tiles.errors.curve.draw(shares, worst > 0 ? Math.max(0.02, worst) : 0);
    let slowest = null;
    for (const s of store.services.values()) if (unitOf(s) === 'request' && s.series.minute99 > (slowest ? slowest.series.minute99 : -1)) slowest = s;
    const [value, unit] = millis(total.minute99).split(' ');
    tiles.p99.draw(value, slowest ? {shows: [slowest.name, millis(slowest.series.minute99)], make: () => [el('a', {href: '#' + encodeURIComponent(slowest.name)}, slowest.name), ' ' + millis(slowest.series.minute99)]} : 'no request in the last minute', '', unit);
    tiles.p99.curve.draw(total.p99, largest(total.p99), total.p50);
  }
  if (connections?.why) tiles.connections.draw('–', connections.why);
  else if (connections) tiles.connections.draw(grouped.format(connections.active), `${plural(connections.reading + connections.writing, 'request')} in flight`);
  let serving = 0, all = 0;
  for (const s of store.services.values()) { serving += s.in; all += s.of; }
  tiles.instances.draw(grouped.format(serving), 'of ' + plural(store.services.size, 'service'), '', serving < all ? 'of ' + grouped.format(all) : '');
  const nginx = status.nginx, last = status.last_apply;
  tiles.generation.draw(nginx.generation ? String(nginx.generation) : '–',
    nginx.since ? {shows: nginx.since, make: () => ['since ', when(nginx.since)]} : last ? last.outcome : 'nginx serves none', nginx.generation ? '' : 'bad');
}

// attentionItems are what somebody should look at, the worst first.
function attentionItems() {
  const {status, problems, certificates} = store.sections, items = [], told = new Set();
  if (!status) return items;
  if (status.frozen) items.push({level: 'warn', what: 'Pinned', text: `generation ${status.frozen.generation} is served until 'lbctl resume'`, since: status.frozen.since});
  if (status.pending && serverNow() - Date.parse(status.pending.since) > 15000) items.push({level: 'warn', what: 'A change waits', text: `${status.pending.change}: ${status.pending.reason}`, since: status.pending.since});
  for (const p of problems?.list || []) {
    const name = p.subject.startsWith('service ') ? p.subject.slice(8) : '';
    const known = name && [...store.services.values()].some(s => s.name === name);
    if (known) told.add(name);
    const general = /^(nginx|consul|template)/.test(p.subject);
    items.push({level: general || /^(panic|quarantined)|^no instance gets traffic/.test(p.message) ? 'bad' : 'warn', what: name || p.subject, link: known ? name : '', text: p.message, since: p.since});
  }
  for (const c of certificates || []) {
    const left = Date.parse(c.not_after) - serverNow();
    if (left > 14 * 86400000 || (problems?.list || []).some(p => p.subject.startsWith('certificate') && p.subject.includes(c.name))) continue;
    items.push({level: left < 0 ? 'bad' : 'warn', what: 'certificate ' + c.name, text: left < 0 ? 'has expired' : 'expires in ' + duration(left)});
  }
  for (const s of store.services.values()) {
    if (s.errorLevel) items.push({level: s.errorLevel, what: s.name, link: s.name, text: `${percent(s.series.share)} of its ${unitOf(s)}s fail, ${rate(s.series.errorRate)}/s`});
    if (RANK[s.ownLevel] >= 2 && !told.has(s.name)) items.push({level: s.ownLevel, what: s.name, link: s.name, text: s.why, since: s.since});
  }
  const nginx = status.nginx;
  if (nginx.old_workers && Date.parse(nginx.old_workers_since) < serverNow() - 600000) items.push({level: 'info', what: 'nginx', text: `${plural(nginx.old_workers, 'old worker')} still ${nginx.old_workers === 1 ? 'has' : 'have'} connections from before a reload`, since: nginx.old_workers_since});
  return items.sort((a, b) => RANK[b.level] - RANK[a.level]);
}

let allAttention = false;
const MOST_ATTENTION = 5;

function drawAttention() {
  const items = attentionItems();
  $('attention').hidden = !items.length;
  const more = store.sections.problems?.more || 0;
  text($('attention-n'), grouped.format(items.length + more));
  const shown = allAttention || items.length <= MOST_ATTENTION + 1 ? items : items.slice(0, MOST_ATTENTION);
  replace($('attention-list'), [shown, items.length, more], () => [
    ...shown.map(i => el('li', mark(i.level), el('div', i.link ? el('a.what', {href: '#' + encodeURIComponent(i.link)}, i.what) : el('span.what', i.what), ' ', i.text), when(i.since))),
    ...(shown.length < items.length ? [el('li.more', moreButton(`Show ${items.length - shown.length} more`, () => { allAttention = true; drawAttention(); }))] : []),
    ...(more && shown.length === items.length ? [el('li.more.dim', `${plural(more, 'more problem')}: 'lbctl status' lists all`)] : [])]);
}

function moreButton(label, act) {
  const button = el('button.button', {type: 'button'}, label);
  button.onclick = act;
  return el('span', button);
}

function drawSystem() {
  const {status, connections, certificates, figures, about} = store.sections;
  if (!status) return;
  const nginx = status.nginx, consul = status.consul, ends = status.endpoints;
  const fact = (name, ...value) => [el('dt', name), el('dd', value)];
  replace($('system-body'), [status, connections, certificates, figures, Math.floor(serverNow() / 3600000)], () => [
    el('section.card.panel', el('h3', mark(nginx.generation ? '' : 'bad'), 'nginx'), el('dl',
      fact('Version', nginx.version), nginx.pid && fact('Process', String(nginx.pid)),
      fact('Generation', nginx.generation ? [String(nginx.generation), ', since ', nginx.since && clockElement(nginx.since)] : 'nginx does not answer'),
      fact('Workers', String(nginx.workers), nginx.workers_reason && el('span.dim', ' · ' + nginx.workers_reason)),
      fact('Old workers', nginx.old_workers ? [String(nginx.old_workers), nginx.old_workers_memory_bytes ? `, ${bytes(nginx.old_workers_memory_bytes)}` : '', nginx.old_workers_since && [', the oldest retired ', when(nginx.old_workers_since)]] : 'none'),
      connections && (connections.why ? fact('Connections', connections.why) : fact('Connections', `${grouped.format(connections.active)} open, ${grouped.format(connections.waiting)} of them wait for a request`)))),
    el('section.card.panel', el('h3', mark(consul.reachable && consul.leader ? '' : 'bad'), 'Consul'), el('dl',
      fact('Agent', consul.address, consul.reachable ? '' : ' does not answer'), fact('Leader', consul.leader || 'none'),
      consul.since && fact('Since', clockElement(consul.since)), consul.last_error && fact('Problem', consul.last_error), consul.refused && fact('Rights', 'Consul refuses the token or the certificate'))),
    el('section.card.panel', el('h3', mark(''), 'lbctl'), el('dl',
      fact('Version', status.version), fact('Runs since', clockElement(status.started)), about?.node && fact('Machine', about.node),
      fact('Instances by', ends.by === 'dns' ? `DNS, ${plural(ends.upstreams, 'upstream')}` : 'reload', ends.reason && el('span.dim', ' · ' + ends.reason)),
      ends.untaken?.length && fact('Not fetched yet', ends.untaken.join(', ')),
      ends.by_reload?.length && fact('By reload', ends.by_reload.map(r => el('div', r.service, el('span.dim', ' · ' + r.reason)))),
      fact('Access log', figures?.why || 'on', figures?.missing ? `, ${plural(figures.missing, 'request')} not counted: nginx could not write ${figures.missing === 1 ? 'it' : 'them'} whole` : ''))),
    el('section.card.panel', el('h3', mark(certificateLevel(certificates)), 'Certificates'), certificates?.length ? el('dl',
      certificates.map(c => { const left = Date.parse(c.not_after) - serverNow(); const level = left < 0 ? 'bad' : left < 14 * 86400000 ? 'warn' : '';
        return fact(c.name, el('span' + (level ? '.num.' + level : ''), left < 0 ? 'expired ' : 'expires in ' + duration(left)), el('span.dim', ` · ${day(new Date(c.not_after))} · ${c.hosts.slice(0, 4).join(', ')}${c.hosts.length > 4 ? ` and ${c.hosts.length - 4} more` : ''}`)); })) : el('p.dim', 'nginx shows none: no listener has TLS.'))]);
}

function certificateLevel(all) {
  const left = Math.min(...(all || []).map(c => Date.parse(c.not_after) - serverNow()));
  return !all?.length ? 'none' : left < 0 ? 'bad' : left < 14 * 86400000 ? 'warn' : '';
}

// LATE is how many seconds the figures may be behind before the page says so.
const LATE = 3;

function drawFiguresNote() {
  const why = figuresOff(), late = store.sections.figures?.late || 0;
  const note = why ? `There are no figures of requests: ${why}.` : late >= LATE ? `The figures of requests are ${duration(late * 1000)} old: lbctl is behind with reading nginx's access log.` : '';
  $('figures-note').hidden = !note;
  replace($('figures-note'), note, () => [mark(why ? 'info' : 'warn'), el('span', note)]);
}

// showEmpty says what to do when there is nothing to list.
function showEmpty(shown, all) {
  const node = $('empty'), status = store.sections.status;
  node.hidden = shown > 0 || !status;
  $('head').hidden = shown === 0;
  $('rows').hidden = shown === 0;
  if (shown > 0 || !status) return;
  const searched = $('search').value.trim(), consul = status.consul;
  replace(node, [all > 0, searched, list.troubleOnly, consul.reachable, !!consul.leader, consul.last_error], () => {
    if (all > 0 && searched) return [el('h3', 'No service matches ', el('q', searched)), el('p', 'The search looks at names, routes, protocols, states and reasons. ', el('kbd', 'Esc'), ' clears it.')];
    if (all > 0) return [el('h3', 'No service is in trouble'), el('p', `All ${grouped.format(all)} are served as they should be.`)];
    if (!consul.reachable || !consul.leader) return [el('h3', 'No services are known yet'), el('p', consul.last_error || (consul.reachable ? 'Consul has no leader.' : `Consul's agent at ${consul.address} does not answer.`)), el('p', el('code', 'lbctl doctor'), ' finds out why.')];
    return [el('h3', 'No services yet'), el('p', 'lbctl balances services that ask for it in Consul. nginx serves as soon as there is one.'),
      el('ol.steps',
        el('li', el('b', 'Start a server with its registrar.'), el('div', 'It registers the server when it answers, and takes it out of the rotation before it stops it.', el('pre', 'APP_NAME=hello_server APP_PORT=7777 TAGS=grpc_server registrar exec -- ./grpc_server'))),
        el('li', el('b', 'Or register it yourself,'), el('div', 'with the tag grpc_server or http_server, or with metadata.', el('pre', 'consul services register -name=cart -address=10.0.0.7 -port=7000 \\\n  -meta=lb-protocol=http -meta=lb-path=/cart'))),
        el('li', el('b', 'It is registered, and not here?'), el('div', el('code', 'lbctl explain SERVICE'), ' and ', el('code', 'lbctl doctor'), ' say why.')))];
  });
}
