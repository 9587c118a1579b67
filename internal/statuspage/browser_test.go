package statuspage

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"lbctl/internal/admin"
	"lbctl/internal/lbtest"
)

// One browser serves all tests: it takes half a second to start.
var browser struct {
	sync.Once
	ctx  context.Context
	stop context.CancelFunc
	err  error
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if browser.stop != nil {
		_ = chromedp.Cancel(browser.ctx) // waits until it has ended
		browser.stop()
	}
	lbtest.RemoveBinary()
	os.Exit(code)
}

// chromium is the path of the browser. Without one it skips the test, or fails it with
// LB_TEST_REQUIRE=1.
func chromium(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("chromium"); err == nil {
		return path
	}
	const missing = `no chromium is on PATH: "build/need.sh chromium" installs it`
	if os.Getenv("LB_TEST_REQUIRE") == "1" {
		t.Fatal("LB_TEST_REQUIRE=1, but " + missing)
	}
	t.Skip("SKIPPED, NOT TESTED: " + missing)
	return ""
}

// A tab is a page in the browser.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu   sync.Mutex
	said []string // what its script and the browser say of it
}

// open opens a tab of a size in pixels, which ends with the test. Whatever the script or the browser
// complains about fails the test.
func open(t testing.TB, width, height int64, url string) *tab {
	t.Helper()
	path := chromium(t)
	browser.Do(func() {
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
			chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("hide-scrollbars", true))
		allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
		browser.ctx, _ = chromedp.NewContext(allocator)
		browser.stop = stop
		browser.err = chromedp.Do(browser.ctx)
	})
	require.NoError(t, browser.err, "start the browser")
	tb := &tab{t: t}
	ctx, cancel := chromedp.NewContext(browser.ctx, chromedp.WithListener(tb.listen))
	tb.ctx = ctx
	t.Cleanup(cancel)
	t.Cleanup(func() {
		tb.mu.Lock()
		defer tb.mu.Unlock()
		for _, line := range tb.said {
			t.Errorf("the browser says: %s", line)
		}
	})
	require.NoError(t, chromedp.Do(ctx)) // the tab lives as long as the context of its first action
	tb.size(width, height)
	lbtest.Eventually(t, "the browser opens "+url, func() error {
		ctx, cancel := tb.within()
		defer cancel()
		return chromedp.Do(ctx, chromedp.Navigate(url)) // the browser gives up when an interface of the machine comes or goes
	})
	return tb
}

func (tb *tab) listen(event any) {
	line := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		line = e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			line += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		for _, arg := range e.Args {
			line += " " + string(arg.Value)
		}
	case *cdplog.EventEntryAdded:
		line = e.Entry.Text
		if e.Entry.Source == cdplog.EntrySourceNetwork { // a daemon that is lost on purpose
			line = ""
		}
	}
	if line != "" {
		tb.mu.Lock()
		tb.said = append(tb.said, strings.TrimSpace(line))
		tb.mu.Unlock()
	}
}

// within limits an action in the browser.
func (tb *tab) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(tb.ctx, lbtest.Patience)
}

func (tb *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := tb.within()
	defer cancel()
	require.NoError(tb.t, chromedp.Do(ctx, actions...))
}

// eval returns the value of an expression in the page.
func eval[T any](tb *tab, expression string) T {
	tb.t.Helper()
	ctx, cancel := tb.within()
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	require.NoError(tb.t, err, expression)
	return value
}

// size makes the window as large as this, and a phone if it is small.
func (tb *tab) size(width, height int64) {
	tb.t.Helper()
	ctx, cancel := tb.within()
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 700})
	require.NoError(tb.t, err)
}

// prefer sets a preference of the user, such as prefers-color-scheme.
func (tb *tab) prefer(name, value string) {
	tb.t.Helper()
	ctx, cancel := tb.within()
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: name, Value: value}}})
	require.NoError(tb.t, err)
}

// until waits until an expression in the page is true.
func (tb *tab) until(expression string) {
	tb.t.Helper()
	lbtest.Eventually(tb.t, "in the page: "+expression, func() error {
		ctx, cancel := tb.within()
		defer cancel()
		value, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && !value {
			err = errors.New("it is false")
		}
		return err
	})
}

// live waits until the page shows what the feed says.
func (tb *tab) live() {
	tb.t.Helper()
	tb.until("document.body.dataset.link === 'live'")
}

// press presses keys one after the other, as a keyboard does: what the page prevents makes no text.
func (tb *tab) press(keys ...string) {
	tb.t.Helper()
	for _, key := range keys {
		for _, event := range kb.Encode([]rune(key)[0]) {
			if event.Type == kb.KeyChar {
				continue // it is part of the event of the key that goes down
			}
			if k := kb.Keys[[]rune(key)[0]]; event.Type == kb.KeyDown && k != nil {
				event.Type, event.Text = input.DispatchKeyEventTypeKeyDown, k.Text
			}
			ctx, cancel := tb.within()
			_, err := chromedp.Call(ctx, input.DispatchKeyEvent, *event)
			cancel()
			require.NoError(tb.t, err)
		}
	}
}

// A served page is one with its feed, at an address of its own.
type served struct {
	URL  string
	page *Page
	stop func()
}

// serve serves a page as the daemon does, until the test ends.
func serve(t testing.TB, opts Options) *served {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return serveAt(t, opts, listener)
}

func serveAt(t testing.TB, opts Options, listener net.Listener) *served {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	page := New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = page.Run(ctx) })
	api := &admin.Server{Handlers: page.Handlers(), Logger: opts.Logger}
	running.Go(func() { _ = api.Run(ctx, listener) })
	s := &served{URL: "http://" + listener.Addr().String() + "/", page: page, stop: func() { cancel(); running.Wait() }}
	t.Cleanup(s.stop)
	return s
}

// quick is an interval for tests that don't want to wait.
const quick = 200 * time.Millisecond
