package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/probe"
)

// ask asks for a report over HTTP.
func ask(r *reporter, method, query string) (status int, answer map[string]json.RawMessage) {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(method, "/health"+query, nil))
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		panic(err)
	}
	return w.Code, answer
}

func TestReportHasTheTimeOfTheNewestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &catalog{}, &prober{}
		c.set(grpcService("fast", "/f.F", endpoints.Passing), grpcService("ill", "/i.I", endpoints.Critical), grpcService("slow", "/s.S", endpoints.Passing))
		now := time.Now()
		failed := probe.Outcome{At: now.Add(-time.Second), Took: time.Millisecond, Err: errors.New("refused")}
		p.newest = map[string]probe.Newest{
			"fast": {Any: probe.Outcome{At: now.Add(-3 * time.Second), Took: 400 * time.Microsecond}, Passed: probe.Outcome{At: now.Add(-3 * time.Second), Took: 400 * time.Microsecond}},
			"ill":  {Any: failed},
			"slow": {Any: failed, Passed: probe.Outcome{At: now.Add(-2 * time.Second), Took: 24 * time.Millisecond}},
		}
		status, answer := ask(newReporter(&monitor{table: c, controller: c}, p), "GET", "")
		assert.Equal(t, http.StatusServiceUnavailable, status)
		assert.JSONEq(t, `{"state":"fresh","serving":true,"passing":1,"total":1,"time":1,"age":3000}`, string(answer["fast"]))
		assert.JSONEq(t, `{"state":"fresh","serving":true,"passing":1,"total":1,"time":24,"age":1976}`, string(answer["slow"]))
		assert.JSONEq(t, `{"state":"fresh","serving":false,"passing":0,"total":1,"time":1,"age":999,"error":"none of its instances passes its checks"}`, string(answer["ill"]))
		assert.Zero(t, p.once.Load(), "the prober's outcomes are fresh enough")
	})
}

// TestReportsAreBounded has many clients ask about 1,000 services that nobody probes.
func TestReportsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &catalog{}, &prober{delay: 10 * time.Second} // no instance answers
		var entries []endpoints.Entry
		for n := range 1000 {
			entries = append(entries, grpcService(fmt.Sprintf("service-%03d", n), fmt.Sprintf("/s%d.S", n), endpoints.Passing, endpoints.Passing))
		}
		c.set(entries...)
		r := newReporter(&monitor{table: c, controller: c}, p)
		for round := range 3 {
			began := time.Now()
			var clients sync.WaitGroup
			for range 200 {
				clients.Go(func() {
					status, answer := ask(r, "GET", "")
					assert.Equal(t, http.StatusOK, status)
					assert.Len(t, answer, 1000)
				})
			}
			clients.Wait()
			assert.LessOrEqual(t, time.Since(began), probePatience)
			assert.LessOrEqual(t, p.once.Load(), int64((round+1)*probesPerReport))
			time.Sleep(reportAge)
		}
		p.delay = time.Millisecond
		for range 1000 / probesPerReport {
			ask(r, "GET", "")
			time.Sleep(reportAge)
		}
		_, answer := ask(r, "GET", "")
		probed := 0
		for _, text := range answer {
			var s Service
			require.NoError(t, json.Unmarshal(text, &s))
			if s.Time != nil {
				probed++
			}
		}
		assert.Equal(t, 1000, probed, "each service has its turn")
	})
}

func TestReportsAreForgottenWithTheirService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := &catalog{}, &prober{}
		c.set(grpcService("a", "/a.A", endpoints.Passing))
		r := newReporter(&monitor{table: c, controller: c}, p)
		ask(r, "GET", "")
		assert.Len(t, r.own, 1)
		time.Sleep(reportAge)
		c.set()
		ask(r, "GET", "")
		assert.Empty(t, r.own)
	})
}

func TestHTTP(t *testing.T) {
	c, p := &catalog{}, &prober{}
	r := newReporter(&monitor{table: c, controller: c}, p)
	status, answer := ask(r, "GET", "")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.JSONEq(t, `"the services are not known yet"`, string(answer["error"]))

	c.set(grpcService("ill", "/i.I", endpoints.Critical), grpcService("planned", "/p.P", endpoints.Maintenance), grpcService("well", "/w.W", endpoints.Passing))
	r = newReporter(&monitor{table: c, controller: c}, p)
	for query, want := range map[string]int{
		"":                              503,
		"?service=well":                 200,
		"?service=planned":              200,
		"?service=well&service=planned": 200,
		"?service=well&service=ill":     503,
		"?service=none":                 404,
		"?service=a;service=b":          400,
		"?service=%zz":                  400,
		"?other=1":                      503,
	} {
		status, answer := ask(r, "GET", query)
		assert.Equal(t, want, status, query)
		assert.NotEmpty(t, answer, query)
	}
	status, answer = ask(r, "POST", "")
	assert.Equal(t, 405, status)
	assert.JSONEq(t, `"the health of the services takes GET, not POST"`, string(answer["error"]))
}
