package statuspage

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
)

// Until lbctl has said how it is, nothing is green.
func TestConnecting(t *testing.T) {
	d := newDemo(time.Now())
	d.add("api", endpoints.GRPC, "/api/", 2, 10)
	source, answers := d.source(), make(chan struct{})
	answer := sync.OnceFunc(func() { close(answers) })
	defer answer()
	status := source.Status
	source.Status = func(ctx context.Context) controller.Status {
		<-answers
		return status(ctx)
	}
	page := serve(t, Options{Source: source, Interval: quick})
	tb := open(t, 1280, 900, page.URL)
	mark := func(selector string) string {
		return eval[string](tb, fmt.Sprintf(`getComputedStyle(document.querySelector(%q)).backgroundColor`, selector))
	}
	assert.Equal(t, "Connecting to lbctl …", eval[string](tb, `document.querySelector('#summary').textContent`))
	connecting := []string{mark("#verdict-mark"), mark(".pulse")}
	answer()
	tb.live()
	assert.Equal(t, "Live", eval[string](tb, `document.querySelector('#live-text').textContent`))
	green := mark(".pulse")
	assert.NotContains(t, connecting, green)
	assert.Equal(t, green, mark("#verdict-mark"))
}
