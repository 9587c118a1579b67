// The feed: an event stream, and what the page says when there is none.

const link = {state: 'connecting', source: null, heard: 0, lostAt: 0, tries: 0, nextTry: 0, why: '', ended: ''};

function connect() {
  link.source?.close();
  link.nextTry = 0;
  const source = link.source = new EventSource('/v1/events');
  const on = (name, act) => source.addEventListener(name, e => { if (link.source === source) act(e); });
  on('snapshot', e => hear(e, true));
  on('update', e => hear(e, false));
  on('end', e => { link.ended = JSON.parse(e.data); lose('lbctl has ended'); });
  on('error', () => lose('lbctl does not answer'));
}

function hear(e, whole) {
  link.heard = performance.now();
  take(JSON.parse(e.data), whole);
  const missed = link.lostAt ? store.now - link.lostAt : 0;
  if (link.state !== 'live') {
    link.tries = 0;
    link.lostAt = 0;
    link.why = link.ended = '';
    setLink('live');
    if (missed) { link.caughtUp = performance.now(); say(`lbctl answers again. ${duration(missed)} were missed; everything is up to date.`); }
  }
  drawAll(whole);
}

function setLink(state) {
  link.state = state;
  document.body.dataset.link = state;
  drawLink();
  drawVerdict();
}

// lose notes that there is no news, and tries again, less and less often.
function lose(why) {
  link.source?.close();
  link.source = null;
  link.why = why;
  const first = link.state !== 'lost';
  if (first) link.lostAt ||= store.now;
  link.tries++;
  link.nextTry = performance.now() + Math.min(10000, 500 * 2 ** link.tries);
  setLink('lost');
  if (first) say(store.now ? `No news from lbctl since ${clock(store.now)}` : why);
  findReason();
}

// findReason asks why there is no event stream: EventSource does not tell.
async function findReason() {
  const stop = new AbortController();
  try {
    const answer = await fetch('/v1/events', {signal: stop.signal});
    if (!answer.ok) link.why = (await answer.json()).error;
  } catch { /* there is no answer */ } finally { stop.abort(); }
  drawLink();
}

function drawLink() {
  const {state} = link, lost = $('lost');
  const fresh = link.caughtUp && performance.now() - link.caughtUp < 5000;
  text($('live-text'), state === 'live' ? (fresh ? 'Caught up' : 'Live') : state === 'lost' ? 'No news' : state === 'paused' ? 'Paused' : 'Connecting');
  attribute($('live'), 'title', state === 'live' ? 'Figures are as of ' + clock(store.now) : null);
  lost.hidden = state !== 'lost';
  if (state !== 'lost') return;
  const wait = Math.max(0, Math.ceil((link.nextTry - performance.now()) / 1000));
  const next = link.nextTry ? (wait ? ` The next try is in ${wait} s.` : '') : ' Trying now …';
  replace($('lost-text'), [link.lostAt, Math.floor(serverNow() / 1000), link.why, next], () => link.lostAt
    ? [el('b', `No news from lbctl since ${clock(link.lostAt)}, ${duration(serverNow() - link.lostAt)} ago: `), `${link.why}. What you see is from then; nginx serves without lbctl.${next}`]
    : [el('b', capital(link.why) + '.'), next]);
}

// HIDDEN is how long a page that nobody sees follows the feed.
const HIDDEN = 20000;

function watch() {
  const now = performance.now(), interval = store.sections.about?.interval || 2000;
  if (document.hidden) {
    link.hiddenAt ||= now;
    if (link.state !== 'paused' && now - link.hiddenAt > HIDDEN) { link.source?.close(); link.source = null; setLink('paused'); }
    return;
  }
  link.hiddenAt = 0;
  if (link.state === 'paused' || link.state === 'lost' && link.nextTry && now > link.nextTry) connect();
  else if (link.state === 'live' && now - link.heard > 3 * interval + 4000) lose('the connection is open, but it says nothing');
  drawLink();
  if (Math.floor(now / 1000) % 5 === 0) { refreshTimes(); if (link.state === 'live') drawAttention(); }
}
