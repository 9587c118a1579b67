//go:build bench

package statuspage

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

var (
	screenshots = flag.String("screenshots", "", "write screenshots of the page with made-up data to this directory")
	picture     = flag.String("picture", "", "write the picture of the manual to this file")
)

// TestPictureOfTheManual makes docs/status-page.png: see make screenshot.
func TestPictureOfTheManual(t *testing.T) {
	if *picture == "" {
		t.Skip("-picture FILE was not given")
	}
	now := time.Now()
	d := newDemo(now)
	d.shop(now)
	tb := open(t, 1280, 1000, serve(t, Options{Source: d.source(), Node: "lb-1"}).URL)
	tb.live()
	tb.prefer("prefers-color-scheme", "light")
	tb.until(`document.querySelectorAll('.item').length > 8`)
	tb.do(chromedp.Sleep(time.Second)) // the animations end
	png := tb.screenshot()
	require.Less(t, len(png), 200_000, "the picture is in the repository for ever")
	require.NoError(t, os.WriteFile(*picture, png, 0o644))
}

// TestScreenshots makes pictures to look at.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("-screenshots DIR was not given")
	}
	now := time.Now()
	shop, one, off, empty := newDemo(now), newDemo(now), newDemo(now), newDemo(now)
	shop.shop(now)
	one.add("hello_server", "grpc", "", 5, 499).Default = true
	one.history(now)
	one.inFlight = map[string]int64{"hello_server": 1234}
	one.add("db", "tcp", "", 2, 20).Port = 5432
	off.add("hello_server", "grpc", "", 5, 499).Default = true
	off.noFigures = "the access log is off (--access-log off); lbctl counts requests with --access-log on, or LBCTL_ACCESS_LOG=on"
	sources := map[string]*demo{"shop": shop, "one": one, "empty": empty, "off": off}
	type shot struct{ name, page, hash, key string }
	shots := []shot{
		{"shop", "shop", "", ""}, {"shop-open", "shop", "#search", ""}, {"changes", "shop", "#/changes", ""}, {"system", "shop", "#/system", ""},
		{"help", "shop", "", "?"}, {"one", "one", "#hello_server", ""}, {"tcp", "one", "#db", ""}, {"empty", "empty", "", ""}, {"off", "off", "", ""}, {"lost", "shop", "", ""},
	}
	for _, s := range shots {
		for _, width := range []int64{390, 1280, 1920} {
			t.Run(fmt.Sprintf("%s at %d", s.name, width), func(t *testing.T) {
				page := serve(t, Options{Source: sources[s.page].source(), Node: "lb-1"})
				tb := open(t, width, map[int64]int64{390: 844, 1280: 900, 1920: 1080}[width], page.URL+s.hash)
				tb.live()
				if s.key != "" {
					tb.press(s.key)
				}
				if s.name == "lost" {
					page.stop()
					tb.until("document.body.dataset.link === 'lost'")
				}
				for _, theme := range []string{"light", "dark"} {
					tb.prefer("prefers-color-scheme", theme)
					time.Sleep(700 * time.Millisecond) // the transitions end
					path := filepath.Join(*screenshots, fmt.Sprintf("%s-%d-%s.png", s.name, width, theme))
					require.NoError(t, os.WriteFile(path, tb.screenshot(), 0o644))
				}
			})
		}
	}
}

// screenshot returns what the window shows, as PNG.
func (tb *tab) screenshot() []byte {
	tb.t.Helper()
	ctx, cancel := tb.within()
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	require.NoError(tb.t, err)
	return png
}
