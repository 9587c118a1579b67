// Views, links, the keyboard and the theme.

const VIEWS = ['services', 'changes', 'system'];

// linked is the service that the address names, '' if it names none.
function linked() {
  const hash = location.hash.slice(1);
  if (!hash || hash.startsWith('/')) return '';
  try { return decodeURIComponent(hash); } catch { return hash; }
}

function showView(view) {
  const other = document.body.dataset.view !== view;
  document.body.dataset.view = view;
  for (const a of $('views').children) attribute(a, 'aria-current', a.dataset.view === view ? 'page' : null);
  if (view === 'services') drawSoon();
  if (other && !SIDE_BY_SIDE.matches) scrollTo({top: 0, behavior: 'instant'});
}

// All views are side by side in a wide window, see the style.
const SIDE_BY_SIDE = matchMedia('(min-width: 1600px)');

let wanted = ''; // a service that the address names and that is not known yet

function follow() {
  const view = location.hash.slice(2), name = linked();
  if (!name) { showView(VIEWS.includes(view) ? view : 'services'); return; }
  showView('services');
  wanted = name;
  openWanted();
}

function openWanted() {
  if (!wanted || !store.sections.status) return;
  const name = wanted, known = [...store.services.values()].some(s => s.name === name);
  if (!known) { say(`There is no service ${name}`); return; } // it may come
  wanted = '';
  if (!list.order.some(s => s.name === name)) { $('search').value = ''; list.words = []; showTrouble(false); arrange(true); }
  if (!list.open.has(name)) { list.open.add(name); fetchDetails(name); place(); }
  const n = list.order.findIndex(s => s.name === name);
  list.cursor = name;
  scrollToRow(n, true);
  draw();
  list.rows.get(list.order[n].id)?.title.focus({preventScroll: true});
}

function showTrouble(only) {
  list.troubleOnly = only;
  attribute($('show-all'), 'aria-pressed', String(!only));
  attribute($('show-trouble'), 'aria-pressed', String(only));
}

function say(message) { text($('said'), message); }

const KEYS = [
  ['/', 'search'], ['j  k', 'next, previous service; also ↓ ↑'], ['Enter', 'open or close it'], ['Esc', 'close, or clear the search'],
  ['1  2  3', 'services, changes, system'], ['t', 'light, dark, as the system'], ['?', 'this help'],
];

function makeHelp() {
  const close = el('button.button', {type: 'button'}, 'Close');
  close.onclick = () => $('help').close();
  const level = (l, words) => [el('dt', mark(l)), el('dd', words)];
  const pip = (kind, words) => { const hollow = kind === 'm'; return [el('dt.pips', svg('svg', {width: 5, height: 14, 'aria-hidden': 'true'}, hollow ? svg('rect', {class: kind, x: .6, y: .6, width: 2.8, height: 12.8, rx: 1.2}) : svg('rect', {class: kind, y: 14 - PIP_HEIGHTS[kind], width: 4, height: PIP_HEIGHTS[kind], rx: 1.2}))), el('dd', words)]; };
  $('help').append(el('h2', {id: 'help-h'}, 'Keyboard and meaning', close),
    el('div.two', el('div', el('h3', 'Keys'), el('dl', KEYS.map(([k, what]) => [el('dt', k.split('  ').map(x => [el('kbd', x), ' '])), el('dd', what)]))),
      el('div', el('h3', 'Services'), el('dl', level('', 'served as Consul says'), level('info', 'on purpose, or on its way'), level('warn', 'served, but not as it should be'), level('bad', 'clients notice, or somebody has to act')),
        el('h3', {style: null}, 'Instances'), el('dl', pip('u', 'gets traffic'), pip('w', 'gets traffic, but something is wrong, or it has just returned'), pip('x', 'critical or ejected'), pip('m', 'in maintenance, or out on purpose')))),
    el('p.foot', 'Figures are of the last minute, curves of the last five. Errors are 5xx, and the status codes of gRPC that are the server’s fault. The page is read-only: ', el('code', 'lbctl'), ' changes things.'));
  $('help').addEventListener('click', e => { if (e.target === $('help')) $('help').close(); });
}

const THEMES = {auto: ['as the system', [svg('circle', {cx: 9, cy: 9, r: 6.2}), svg('path', {class: 'solid', d: 'M9 2.8a6.2 6.2 0 0 1 0 12.4z'})]],
  light: ['light', [svg('circle', {cx: 9, cy: 9, r: 3.4}), svg('path', {d: 'M9 1v1.6M9 15.4V17M1 9h1.6M15.4 9H17M3.3 3.3l1.2 1.2M13.5 13.5l1.2 1.2M3.3 14.7l1.2-1.2M13.5 4.5l1.2-1.2'})]],
  dark: ['dark', [svg('path', {d: 'M14.5 10.8A6.2 6.2 0 0 1 7.2 3.5a6.2 6.2 0 1 0 7.3 7.3z'})]]};

function setTheme(theme) {
  if (!THEMES[theme]) theme = 'auto';
  if (theme === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
  try { localStorage.setItem('lbctl-theme', theme); } catch { /* it lasts as long as the page */ }
  $('theme').replaceChildren(svg('svg', {width: 18, height: 18, 'aria-hidden': 'true'}, ...THEMES[theme][1].map(n => n.cloneNode())));
  const words = `Theme: ${THEMES[theme][0]}`;
  $('theme').setAttribute('aria-label', words);
  $('theme').title = words + ' (t)';
  setTheme.current = theme;
}

function nextTheme() {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(setTheme.current) + 1) % names.length]);
  say($('theme').getAttribute('aria-label'));
}

function storedTheme() {
  try { return localStorage.getItem('lbctl-theme'); } catch { return null; }
}

function onKey(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || $('help').open) return;
  const typing = e.target.matches('input, select, textarea');
  if (e.key === 'Escape') return escape();
  if (typing && !(e.target === $('search') && ['ArrowDown', 'ArrowUp', 'Enter'].includes(e.key))) return;
  const act = {
    '/': () => { showView('services'); $('search').focus(); $('search').select(); },
    'j': () => move(1), 'k': () => move(-1),
    'ArrowDown': () => move(1), 'ArrowUp': () => move(-1),
    'Enter': () => e.target === $('search') && list.order.length ? (move(0), list.order.length === 1 && !list.open.has(list.order[0].name) && toggle(list.order[0].name)) : false,
    'Home': () => inList() ? focusRow(0) : false, 'End': () => inList() ? focusRow(list.order.length - 1) : false,
    't': nextTheme, '?': () => $('help').showModal(),
    '1': () => go('services'), '2': () => go('changes'), '3': () => go('system'),
  }[e.key];
  if (act && act() !== false) e.preventDefault();
}

const inList = () => $('rows').contains(document.activeElement);

function go(view) {
  location.hash = '#/' + view;
  const section = $(view);
  if (SIDE_BY_SIDE.matches) section.scrollIntoView({block: 'nearest'});
}

function move(by) {
  if (document.body.dataset.view !== 'services' || !list.order.length) return false;
  const n = cursorRow();
  // Within the details of an open service arrows scroll, and j and k go on to its neighbours.
  if (document.activeElement === $('search') || n < 0) focusRow(by < 0 ? list.order.length - 1 : 0);
  else focusRow(inList() ? n + by : n);
}

function escape() {
  const search = $('search');
  if (document.activeElement === search || search.value) {
    if (search.value) { search.value = ''; onSearch(); }
    else search.blur();
    return;
  }
  const name = list.open.has(list.cursor) ? list.cursor : [...list.open].pop();
  if (!name) return;
  close(name);
  place();
  draw();
  const n = list.order.findIndex(s => s.name === name);
  if (n >= 0) focusRow(n);
}

function onSearch() {
  list.words = $('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  arrange(true);
  say(list.words.length ? plural(list.order.length, 'service') + ' found' : '');
}
