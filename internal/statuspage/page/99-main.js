// drawAll shows what the newest frame has said.
function drawAll(whole) {
  drawVerdict();
  drawTiles();
  drawAttention();
  drawChanges();
  drawSystem();
  drawFiguresNote();
  arrange(whole && !list.order.length);
  refreshTimes();
  openWanted();
  for (const name of list.open) if ([...store.services.values()].some(s => s.name === name)) fetchDetails(name);
  const pulse = document.querySelector('.pulse');
  pulse.classList.add('beat');
  setTimeout(() => pulse.classList.remove('beat'), 400);
}

function measure() {
  list.rowHeight = parseFloat(getComputedStyle(document.documentElement).getPropertyValue('--row'));
  place();
}

setTheme(storedTheme());
makeHead();
makeHelp();
showView('services');
addEventListener('keydown', onKey);
addEventListener('hashchange', follow);
addEventListener('scroll', drawSoon, {passive: true});
addEventListener('resize', measure);
addEventListener('visibilitychange', watch);
addEventListener('online', () => { if (link.state === 'lost') connect(); });
$('theme').onclick = nextTheme;
$('help-open').onclick = () => $('help').showModal();
$('retry').onclick = () => { link.tries = 0; connect(); };
$('search').oninput = onSearch;
$('sort').onchange = e => { list.sort = e.target.value; arrange(true); };
$('show-all').onclick = () => { showTrouble(false); arrange(true); };
$('show-trouble').onclick = () => { showTrouble(true); arrange(true); };
measure();
follow();
connect();
setInterval(watch, 1000);
