package statuspage

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// The page of a real balancer: figures equal those of the client, a killed instance shows up, and so
// does a daemon that has gone.
func TestRealBalancer(t *testing.T) {
	chromium(t)
	all := nginxtest.Binaries(t)
	consul := consultest.Start(t)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	b := lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Nginx: all[len(all)-1], Args: []string{"--admin", address}})
	tb := open(t, 1280, 900, "http://"+address+"/")
	tb.live()
	tb.until(`document.querySelector('#empty h3')?.textContent === 'No services yet'`)

	const service = "hello_server"
	var servers []*lbtest.Backend
	for n := range 3 {
		s := lbtest.StartBackend(t, fmt.Sprintf("server-%d", n+1))
		s.Register(t, consul.Client(), service)
		servers = append(servers, s)
	}
	b.WaitServing(service, 3)
	tb.until(`document.querySelector('.item .pips')?.textContent.includes('3/3')`)

	conn, err := grpc.NewClient(b.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	answers := map[string]int{}
	for range 540 {
		answer, err := protos.NewPingClient(conn).SayHello(context.Background(), &protos.PingMessage{})
		require.NoError(t, err)
		answers[answer.GetGreeting()]++
	}
	for range 60 {
		err := conn.Invoke(context.Background(), "/protos.Ping/Nothing", &protos.PingMessage{}, &protos.PingMessage{})
		require.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)
	}
	tb.until(`document.querySelector('.item .rate .num')?.textContent === '10.0'`) // 600 within a minute
	assert.Equal(t, "10 %", eval[string](tb, `document.querySelector('.item .error .num').textContent`))
	assert.Equal(t, "10.0/s", eval[string](tb, `document.querySelector('.tile .v').textContent`))
	assert.Contains(t, eval[string](tb, `document.querySelector('#attention-list').textContent`), "10 % of its requests fail, 1.0/s")

	tb.do(chromedp.Click(chromedp.CSS(".item .line")))
	tb.until(`document.querySelectorAll('.instances tbody tr').length === 3`)
	for _, server := range servers {
		row := fmt.Sprintf(`[...document.querySelectorAll('.instances tbody tr')].find(r => r.textContent.includes('127.0.0.1:%d'))`, server.Port)
		rate := eval[string](tb, row+`.querySelector('[data-l="Req/s"]').textContent`)
		shown, err := strconv.ParseFloat(rate, 64)
		require.NoError(t, err)
		// Calls of a method that does not exist don't say who answers.
		assert.InDelta(t, float64(answers[server.Name])/60, shown, 60.0/60+.1, server.Name)
		assert.Contains(t, eval[string](tb, row+`.querySelector('.last').textContent`), "UNIMPLEMENTED")
	}

	servers[0].Kill()
	tb.until(`document.querySelector('.item .pips').textContent.includes('2/3')`)
	killed := fmt.Sprintf(`[...document.querySelectorAll('.instances tbody tr')].find(r => r.textContent.includes('127.0.0.1:%d')).querySelector('.state').textContent`, servers[0].Port)
	tb.until(killed + `.match(/^(ejected|critical).*refused/)`)
	tb.until(`document.querySelector('#attention-list').textContent.includes('hello_server')`)

	b.KillLbctl()
	tb.until(`document.body.dataset.link === 'lost'`)
	assert.Regexp(t, `^No news from lbctl since [\d:]+, \d+ s ago: .*What you see is from then`, eval[string](tb, `document.querySelector('#lost-text').textContent`))
	b.StartLbctl()
	tb.live()
	tb.until(`document.querySelector('#lost').hidden && document.querySelector('#said').textContent.includes('were missed')`)

	b.PauseLbctl() // the connection stays open
	tb.until(`document.querySelector('#lost-text').textContent.includes('the connection is open, but it says nothing')`)
	b.ContinueLbctl()
	tb.live()

	tb.press("2")
	tb.until(`document.querySelector('#changes .event')`)
	tb.do(chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll('.event')].find(e => e.textContent.includes('applied') && e.textContent.includes('new service')).firstChild.click()`))
	tb.until(`document.querySelector('.event.open .diff .add')?.textContent.includes('+')`)
}
