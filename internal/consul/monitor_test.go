package consul

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consulclient"
	"lbctl/internal/endpoints"
)

// TestAnAgentThatLostItsServersRejoins imitates an agent after a partition; test/e2e has a
// real one.
func TestAnAgentThatLostItsServersRejoins(t *testing.T) {
	tests := []struct {
		name    string
		allowed bool
		joined  []string
		leader  string
		trouble string
	}{
		{"it joins a server that it knew", true, []string{"10.0.0.1:8301"}, "10.0.0.1:8300", ""},
		{"the token does not allow it", false, nil, "", "Consul has no leader: No known Consul servers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var joined []string
			asked := 0 // since it joined
			agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				address, join := strings.CutPrefix(r.URL.Path, "/v1/agent/join/")
				switch {
				case r.URL.Path == "/v1/agent/members":
					fmt.Fprint(w, `[{"Name":"web","Addr":"10.0.0.9","Port":8301,"Tags":{"role":"node"}},`+
						`{"Name":"server-1","Addr":"10.0.0.1","Port":8301,"Tags":{"role":"consul"},"Status":4}]`)
				case join && !tt.allowed:
					http.Error(w, "Permission denied", http.StatusForbidden)
				case join:
					joined = append(joined, address)
				case r.URL.Path == "/v1/status/leader":
					if len(joined) > 0 {
						asked++
					}
					if asked < 3 {
						http.Error(w, "No known Consul servers", http.StatusInternalServerError)
						return
					}
					fmt.Fprint(w, `"10.0.0.1:8300"`)
				default:
					fmt.Fprint(w, `[]`)
				}
			}))
			defer agent.Close()
			config := &api.Config{Address: strings.TrimPrefix(agent.URL, "http://"), Scheme: "http"}
			table, err := endpoints.Open("", endpoints.Options{})
			require.NoError(t, err)
			client, err := consulclient.New(config)
			require.NoError(t, err)
			credentials, err := newCredentials(client, newQueries(), slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			m := newMonitor(credentials, table, slog.New(slog.DiscardHandler))

			m.check(t.Context())
			status, _ := m.current()
			assert.Equal(t, tt.joined, joined)
			assert.Equal(t, tt.leader, status.Leader)
			assert.Equal(t, tt.trouble, status.LastError)
			assert.Equal(t, tt.allowed, !m.queries.renewedAt.IsZero(), "the running queries hang on the connections that the agent had")
		})
	}
}

// TestALongOutageSendsAllQueriesAgain: queries hang on dead connections, whatever the reasons
// that the agent gives meanwhile.
func TestALongOutageSendsAllQueriesAgain(t *testing.T) {
	good := Status{Reachable: true, Leader: "10.0.0.1:8300"}
	silent, noLeader := Status{LastError: "no answer"}, Status{Reachable: true, LastError: "Consul has no leader"}
	for name, c := range map[string]struct {
		outage []Status // one a second
		want   bool
	}{
		"long, for two reasons": {[]Status{silent, silent, silent, noLeader, noLeader, noLeader}, true},
		"long, for one":         {slices.Repeat([]Status{noLeader}, 6), true},
		"short":                 {[]Status{silent, silent, noLeader}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &monitor{queries: &queries{}, logger: slog.New(slog.DiscardHandler)}
				for _, status := range slices.Concat([]Status{good}, c.outage, []Status{good}) {
					m.note(status)
					time.Sleep(time.Second)
				}
				assert.Equal(t, c.want, m.queries.renewal)
			})
		})
	}
}
