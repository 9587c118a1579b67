package statuspage

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
	"lbctl/internal/render"
)

// names are those of the rows in the document, in their order.
const names = `[...document.querySelectorAll('.item .name')].map(n => n.textContent).join(' ')`

// focused is the name of the service that has the focus.
const focused = `document.activeElement.classList.contains('name') ? document.activeElement.textContent : ''`

func TestSearchSortAndKeyboard(t *testing.T) {
	d := newDemo(time.Now())
	d.add("alpha", endpoints.GRPC, "/alpha.v1.A/", 2, 10)
	d.add("beta", endpoints.HTTP, "/beta", 2, 300)
	d.add("gamma", endpoints.GRPC, "/gamma.v1.G/", 2, 20)
	d.failing["beta"], d.slow["alpha"] = .008, 1.5
	gamma := d.find("gamma")
	gamma.State, gamma.Reason = endpoints.Held, "1 of 3 vanished"
	page := serve(t, Options{Source: d.source(), Interval: quick})
	tb := open(t, 1280, 900, page.URL)
	tb.live()
	order := func(want string) {
		t.Helper()
		tb.until(fmt.Sprintf("%s === %q", names, want))
	}
	press := tb.press
	order("gamma alpha beta") // trouble first

	t.Run("sort", func(t *testing.T) {
		for _, by := range []struct{ label, want string }{
			{"Requests/s", "beta gamma alpha"}, {"Errors", "beta alpha gamma"}, {"p99", "alpha"}, {"Service", "alpha beta gamma"},
		} {
			tb.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`[...document.querySelectorAll('.head button')].find(b => b.textContent === %q).click()`, by.label)))
			tb.until(fmt.Sprintf("(%s).startsWith(%q)", names, by.want))
			assert.Equal(t, by.label, eval[string](tb, `document.querySelector('[aria-sort] button').textContent`))
		}
		tb.do(chromedp.SetValue(chromedp.CSS("#sort"), "trouble"), chromedp.Evaluate[chromedp.Void](`document.querySelector('#sort').dispatchEvent(new Event('change'))`))
		order("gamma alpha beta")
	})
	t.Run("search", func(t *testing.T) {
		press("/", "b", "e")
		order("beta")
		tb.until(`document.querySelector('.name mark')?.textContent === 'be'`)
		assert.Equal(t, "1 of 3", eval[string](tb, `document.querySelector('#services-n').textContent`))
		press("x")
		tb.until(`document.querySelector('#empty h3')?.textContent.startsWith('No service matches')`)
		press(kb.Escape)
		order("gamma alpha beta")
		press("h", "e", "l", "d")
		order("gamma")
		press(kb.Escape, kb.Escape)
		order("gamma alpha beta")
		assert.Equal(t, "BODY", eval[string](tb, `document.activeElement.tagName`))
	})
	t.Run("only trouble", func(t *testing.T) {
		tb.do(chromedp.Click(chromedp.CSS("#show-trouble")))
		order("gamma")
		tb.do(chromedp.Click(chromedp.CSS("#show-all")))
		order("gamma alpha beta")
	})
	t.Run("keys move, open and close", func(t *testing.T) {
		press("j")
		assert.Equal(t, "gamma", eval[string](tb, focused))
		press("j", kb.ArrowDown)
		assert.Equal(t, "beta", eval[string](tb, focused))
		press("k")
		assert.Equal(t, "alpha", eval[string](tb, focused))
		assert.NotEqual(t, "none", eval[string](tb, `getComputedStyle(document.activeElement.closest('.line')).outlineStyle`), "the focus is seen")
		press(kb.Enter)
		tb.until(`document.querySelectorAll('.instances tbody tr').length === 2`)
		assert.Equal(t, "true", eval[string](tb, `document.activeElement.getAttribute('aria-expanded')`))
		assert.Equal(t, "#alpha", eval[string](tb, `location.hash`))
		tb.until(`document.querySelectorAll('.item')[2].getBoundingClientRect().top >= document.querySelectorAll('.item')[1].getBoundingClientRect().bottom - 1`)
		press(kb.Escape)
		tb.until(`!document.querySelector('.opened')`)
		assert.Equal(t, "alpha", eval[string](tb, focused))
		press(kb.End)
		assert.Equal(t, "beta", eval[string](tb, focused))
	})
	t.Run("views, help and theme", func(t *testing.T) {
		press("2")
		tb.until(`document.body.dataset.view === 'changes' && location.hash === '#/changes'`)
		press("3")
		tb.until(`document.querySelector('#system-body').textContent.includes('Old workers')`)
		press("1", "?")
		tb.until(`document.querySelector('#help').open`)
		press(kb.Escape)
		tb.until(`!document.querySelector('#help').open`)
		background := `getComputedStyle(document.body).backgroundColor`
		press("t")
		light := eval[string](tb, background)
		press("t")
		assert.NotEqual(t, light, eval[string](tb, background))
		tb.do(chromedp.Reload())
		tb.live()
		assert.Equal(t, "dark", eval[string](tb, `document.documentElement.dataset.theme`), "the theme is remembered")
		press("t")
		assert.Equal(t, "", eval[string](tb, `document.documentElement.dataset.theme || ''`))
	})
}

func TestDeepLink(t *testing.T) {
	d := newDemo(time.Now())
	d.many(300)
	page := serve(t, Options{Source: d.source(), Interval: quick})
	tb := open(t, 1280, 900, page.URL+"#service-0250")
	tb.until(`document.querySelectorAll('.instances tbody tr').length === 5`)
	assert.Equal(t, "service-0250", eval[string](tb, focused))
	at := eval[float64](tb, `document.querySelector('.item.open').getBoundingClientRect().top`)
	assert.InDelta(t, 60, at, 30, "it is at the top")
	tb.do(chromedp.Evaluate[chromedp.Void](`location.hash = '#later'`))
	tb.until(`document.querySelector('#said').textContent === 'There is no service later'`)
	d.mu.Lock()
	d.add("later", endpoints.GRPC, "/later/", 1, 0)
	d.mu.Unlock()
	tb.until(fmt.Sprintf("(%s) === 'later'", focused))
}

func TestNamesOfOthersAreText(t *testing.T) {
	const evil = `<img src=x onerror="document.title='pwned'"><script>document.title='pwned'</script>"'&lt;`
	d := newDemo(time.Now())
	s := d.add(evil, endpoints.GRPC, "/"+evil, 1, 50)
	s.State, s.Reason, s.Problems = endpoints.Held, evil, []string{evil + "2"}
	s.Instances[0].ID, s.Instances[0].Node, s.Instances[0].Reason, s.Instances[0].Version = evil, evil, evil, evil
	d.status.Summary, d.status.Version, d.status.Consul.LastError = evil, evil, evil
	d.status.Problems = []render.Problem{{Subject: "service " + evil, Message: evil}, {Subject: evil, Message: evil}}
	d.history(time.Now())
	d.events[0].Change, d.events[1].Reason = evil, evil
	page := serve(t, Options{Source: d.source(), Node: evil, Interval: quick})
	tb := open(t, 1280, 900, page.URL)
	tb.live()
	tb.do(chromedp.Click(chromedp.CSS(".item .name")))
	tb.until(`document.querySelector('.instances tbody .id')?.textContent.includes('<script>')`)
	assert.Equal(t, evil, eval[string](tb, `document.querySelector('.item .name').textContent`))
	tb.press("2", "3")
	tb.do(chromedp.Evaluate[chromedp.Void](`document.querySelector('.event > button').click()`))
	assert.Zero(t, eval[int](tb, `document.querySelectorAll('img, script:not(:last-of-type)').length`))
	assert.NotContains(t, eval[string](tb, `document.title.replace(/ · .*/, '')`), "pwned")
	assert.Contains(t, eval[string](tb, `document.body.textContent`), evil)
}

// Every view, at every width, is as wide as the window, and its text can be read.
func TestWidthsAndContrast(t *testing.T) {
	now := time.Now()
	d := newDemo(now)
	d.shop(now)
	d.inFlight = map[string]int64{"search": 12345}
	page := serve(t, Options{Source: d.source(), Node: "lb-1", Interval: quick})
	tb := open(t, 390, 844, page.URL+"#search")
	tb.live()
	tb.until(`document.querySelector('.instances tbody tr')`)
	for _, width := range []int64{320, 390, 768, 1024, 1280, 1920} {
		tb.size(width, 900)
		for _, view := range []string{"changes", "system", "services"} {
			tb.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`location.hash = '#/%s'`, view)))
			tb.until(fmt.Sprintf(`document.body.dataset.view === %q`, view))
			assert.LessOrEqual(t, eval[int64](tb, `document.documentElement.scrollWidth`), width, "%s at %d pixels", view, width)
		}
	}
	for _, theme := range []string{"light", "dark"} {
		tb.prefer("prefers-color-scheme", theme)
		for _, width := range []int64{390, 1920} {
			tb.size(width, 900)
			assert.Empty(t, eval[[]string](tb, lowContrast), "%s at %d pixels", theme, width)
		}
	}
}

// lowContrast lists texts whose contrast is less than WCAG's AA wants.
const lowContrast = `(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = (top, below) => top.slice(0, 3).map((c, n) => c * top[3] + below[n] * (1 - top[3]));
  const luminance = c => { const [r, g, b] = c.map(x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const background = node => node ? over(rgba(getComputedStyle(node).backgroundColor), background(node.parentElement)) : [255, 255, 255];
  const bad = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), node = walker.currentNode.parentElement;
    if (!text || !node.checkVisibility() || node.closest('script, .sr, noscript') || node.ownerSVGElement) continue;
    const style = getComputedStyle(node), below = background(node);
    const [a, b] = [luminance(over(rgba(style.color), below)), luminance(below)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05), large = parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700 || parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) bad.add(ratio.toFixed(2) + ' ' + node.className + ': ' + text.slice(0, 40));
  }
  return [...bad];
})()`

func TestWithoutFigures(t *testing.T) {
	d := newDemo(time.Now())
	d.noFigures = "the access log is off; turn it on"
	d.add("api", endpoints.GRPC, "/api/", 2, 10)
	page := serve(t, Options{Source: d.source(), Interval: quick})
	tb := open(t, 1280, 900, page.URL)
	tb.live()
	tb.until(`document.querySelector('#figures-note').textContent.includes('the access log is off; turn it on')`)
	assert.Equal(t, "–", eval[string](tb, `document.querySelector('.item .rate .num').textContent`))
	tb.do(chromedp.Click(chromedp.CSS(".item .name")))
	tb.until(`document.querySelectorAll('.instances tbody tr').length === 2`)
	assert.Equal(t, "–", eval[string](tb, `document.querySelector('.instances [data-l="Req/s"]').textContent`))
}

// The feed does not mention services without requests: the page has to know what that means.
func TestRequestsThatEnd(t *testing.T) {
	d := newDemo(time.Now())
	d.add("api", endpoints.GRPC, "/api/", 2, 100)
	tb := open(t, 1280, 900, serve(t, Options{Source: d.source(), Interval: quick}).URL)
	const rate = `parseFloat(document.querySelector('.item .rate .num')?.textContent)`
	tb.until(rate + " > 50")
	before := eval[float64](tb, rate)
	d.mu.Lock()
	d.weights["api"] = 0
	d.mu.Unlock()
	tb.until(fmt.Sprintf("%s < %f", rate, before*.95)) // one of the twelve points of the last minute is 0
}

func TestRequestsInFlight(t *testing.T) {
	d := newDemo(time.Now())
	d.add("api", endpoints.GRPC, "/api/", 2, 10)
	tb := open(t, 1280, 900, serve(t, Options{Source: d.source(), Interval: quick}).URL+"#api")
	const caption = `document.querySelector('.item.open .chart figcaption')?.textContent`
	tb.until(caption + `?.includes('/s, ')`)
	assert.NotContains(t, eval[string](tb, caption), "in flight", "they are not counted")
	for n, want := range map[int64]string{0: ", 0 in flight", 1234: ", 1,234 in flight"} {
		d.mu.Lock()
		d.inFlight = map[string]int64{"api": n, "other": 7}
		d.mu.Unlock()
		tb.until(fmt.Sprintf(`%s.includes(%q)`, caption, want))
	}
}

func TestFiguresThatAreBehind(t *testing.T) {
	d := newDemo(time.Now())
	d.add("api", endpoints.GRPC, "/api/", 2, 10)
	source := d.source()
	source.Log = func() accesslog.Stats {
		return accesslog.Stats{Lost: 13, Malformed: 1, Lag: 9 * time.Second, Unread: 1 << 20}
	}
	tb := open(t, 1280, 900, serve(t, Options{Source: source, Interval: quick}).URL+"#/system")
	tb.until(`document.querySelector('#system-body').textContent.includes('13 requests not counted')`)
	tb.press("1")
	tb.until(`document.querySelector('#figures-note').textContent.startsWith('The figures of requests are 9 s old')`)
}

func TestTooManyWatchers(t *testing.T) {
	page := serve(t, Options{Source: newDemo(time.Now()).source(), Interval: quick, MaxWatchers: 1})
	first := watch(t, page.URL)
	first.next()
	tb := open(t, 390, 844, page.URL)
	tb.until(`document.querySelector('#lost-text').textContent.includes('1 watch already')`)
	first.closed()
	tb.live()
}

// A daemon that comes back is noticed without a reload of the page, and all of it is up to date.
func TestCatchingUp(t *testing.T) {
	d := newDemo(time.Now())
	d.add("api", endpoints.GRPC, "/api/", 2, 10)
	d.add("web", endpoints.HTTP, "/web", 2, 10)
	page := serve(t, Options{Source: d.source(), Interval: quick})
	tb := open(t, 1280, 900, page.URL)
	tb.live()
	page.stop()
	tb.until(`document.querySelector('#lost-text').textContent.match(/^No news from lbctl since .* ago: (lbctl has ended|lbctl does not answer)/)`)
	assert.Contains(t, eval[string](tb, `document.title`), "no news")
	assert.Equal(t, "api web", eval[string](tb, names), "what was last known stays")
	d.services = d.services[1:]
	d.add("zoo", endpoints.GRPC, "/zoo/", 2, 10)
	listener, err := net.Listen("tcp", page.URL[len("http://"):len(page.URL)-1])
	require.NoError(t, err)
	serveAt(t, Options{Source: d.source(), Interval: quick}, listener)
	tb.until(names + ` === 'web zoo'`)
	assert.True(t, eval[bool](tb, `document.querySelector('#lost').hidden`))
}

// 1,000 services need no more of the document than fit the window, and drawing what is new takes a
// moment only.
func TestAThousandServices(t *testing.T) {
	d := newDemo(time.Now())
	d.many(1000)
	page := serve(t, Options{Source: d.source(), Interval: quick})
	tb := open(t, 1280, 900, page.URL)
	tb.live()
	tb.until(`document.querySelectorAll('.item').length > 5`)
	assert.Equal(t, "1,000", eval[string](tb, `document.querySelector('#services-n').textContent`))
	assert.Less(t, eval[int](tb, `document.querySelectorAll('.item').length`), 60)
	assert.Less(t, eval[int](tb, `document.querySelectorAll('*').length`), 3000)

	metrics := func() map[string]float64 {
		ctx, cancel := tb.within()
		defer cancel()
		answer, err := chromedp.Call(ctx, performance.GetMetrics, cdp.Empty{})
		require.NoError(t, err)
		all := map[string]float64{}
		for _, m := range answer.Metrics {
			all[m.Name] = m.Value
		}
		return all
	}
	ctx, cancel := tb.within()
	defer cancel()
	_, err := chromedp.Call(ctx, performance.Enable, performance.EnableParams{})
	require.NoError(t, err)
	tb.do(chromedp.Evaluate[chromedp.Void](`window.long = []; window.updates = 0;
		new PerformanceObserver(l => l.getEntries().forEach(e => long.push(Math.round(e.duration)))).observe({type: 'longtask'});
		new MutationObserver(() => updates++).observe(document.querySelector('.tile .v'), {subtree: true, characterData: true, childList: true})`))
	before := metrics()
	tb.until(`updates >= 2`) // two new points: ten seconds, fifty frames
	after := metrics()
	frames := 50.0
	t.Logf("in 2 points and some %.0f frames of 1,000 services: %.1f ms of work each, long tasks (ms): %v",
		frames, (after["TaskDuration"]-before["TaskDuration"])*1000/frames, eval[[]int](tb, `long`))

	// From the top to the end, and each row is there when it is in sight.
	for _, at := range []string{"0", ".37", "1"} {
		tb.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`scrollTo(0, document.documentElement.scrollHeight * %s)`, at)))
		tb.until(`[...document.querySelectorAll('.item')].some(r => { const b = r.getBoundingClientRect(); return b.top < innerHeight * .6 && b.bottom > innerHeight * .4; }) || scrollY === 0`)
	}
	tb.until(fmt.Sprintf("(%s).endsWith('service-0999')", names))
	tb.press("/", "0", "1", "2", "3")
	tb.until(names + ` === 'service-0123'`)
}
