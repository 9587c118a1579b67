package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul/api"
	pkgerrors "github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
)

// script is a dependency that gives one answer after the other, and then hangs.
type script struct {
	*dependency.HealthServiceQuery
	answers []scripted
	asked   []uint64 // the indexes in its requests
	ended   chan struct{}
}

type scripted struct {
	index uint64
	err   error
}

func newScript(t *testing.T, answers ...scripted) *script {
	t.Helper()
	d, err := dependency.NewHealthServiceQuery("web|any")
	require.NoError(t, err)
	return &script{d, answers, nil, make(chan struct{})}
}

func (s *script) Fetch(_ *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	s.asked = append(s.asked, opts.WaitIndex)
	if len(s.answers) == 0 {
		<-s.ended
		return nil, nil, dependency.ErrStopped
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return a.index, &dependency.ResponseMetadata{LastIndex: a.index}, a.err
}

func (s *script) Stop() { close(s.ended) }

// cancellableScript is a script that can be cancelled.
type cancellableScript struct{ *script }

func (s cancellableScript) FetchContext(ctx context.Context, clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	if len(s.answers) > 0 {
		return s.Fetch(clients, opts)
	}
	s.asked = append(s.asked, opts.WaitIndex)
	<-ctx.Done()
	return nil, nil, ctx.Err()
}

var errScript = pkgerrors.Wrap(api.StatusError{Code: 500, Body: "no leader\n"}, "health.service(web|any)")

func TestAQueryIsSentAgainUntilItSucceeds(t *testing.T) {
	fails := scripted{err: errScript}
	for _, tt := range []struct {
		name    string
		answers []scripted
		asked   []uint64 // the first has the index 7
		index   uint64   // returned to consul-template
		changes int      // calls of changed
	}{
		{"it succeeds", []scripted{{index: 9}}, []uint64{7}, 9, 0},
		{"it waits without a change", []scripted{{index: 7}}, []uint64{7}, 7, 0},
		{"a single failure is not reported", []scripted{fails, {index: 9}}, []uint64{7, 0}, 9, 0},
		{"two failures in a row are reported", []scripted{fails, fails, {index: 9}}, []uint64{7, 0, 0}, 9, 2},
		{"many failures are reported once", []scripted{fails, fails, fails, fails, {index: 9}}, []uint64{7, 0, 0, 0, 0}, 9, 2},
		{"another error is reported", []scripted{fails, fails, {err: io.EOF}, {err: io.EOF}, {index: 9}}, []uint64{7, 0, 0, 0, 0}, 9, 3},
		{"after a failure the same index is lowered", []scripted{fails, {index: 7}}, []uint64{7, 0}, 6, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t, tt.answers...)
				changes := 0
				q := newQuery(s, func() { changes++ })
				_, meta, err := q.Fetch(nil, &dependency.QueryOptions{WaitIndex: 7})
				require.NoError(t, err)
				assert.Equal(t, tt.index, meta.LastIndex)
				assert.Equal(t, tt.asked, s.asked)
				assert.Equal(t, tt.changes, changes)
				_, fails := q.failing()
				assert.False(t, fails)
			})
		})
	}
}

func TestAQueryRemembersItsFirstFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := newScript(t, scripted{err: errScript}, scripted{err: errScript}, scripted{err: errScript})
		q := newQuery(s, func() {})
		ended := make(chan error)
		go func() {
			_, _, err := q.Fetch(nil, &dependency.QueryOptions{WaitIndex: 7})
			ended <- err
		}()
		time.Sleep(10 * time.Second) // the script hangs by then
		f, fails := q.failing()
		require.True(t, fails)
		assert.Equal(t, "health.service(web|any)", f.query)
		assert.True(t, began.Equal(f.since))
		assert.Equal(t, "Consul answers 500 for it since "+began.Format(time.TimeOnly), f.reason())
		assert.Equal(t, "no leader", f.details())
		q.Stop()
		assert.Equal(t, dependency.ErrStopped, <-ended)
	})
}

func TestARenewedQueryIsAskedAnewAtOnce(t *testing.T) {
	for name, dependencyOf := range map[string]func(*script) dependency.Dependency{
		"not cancellable": func(s *script) dependency.Dependency { return s },
		"cancellable":     func(s *script) dependency.Dependency { return cancellableScript{s} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t)
				q := newQuery(dependencyOf(s), func() {})
				ended := make(chan error)
				go func() {
					_, _, err := q.Fetch(nil, &dependency.QueryOptions{WaitIndex: 7})
					ended <- err
				}()
				synctest.Wait()
				q.renew()
				synctest.Wait()
				assert.Equal(t, []uint64{7, 0}, s.asked)
				q.Stop()
				assert.Equal(t, dependency.ErrStopped, <-ended)
			})
		})
	}
}

func TestACancelledQueryReportsItsLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := slowService{newServiceQuery("web", metadata.Reserved{})}
		q := newQuery(slow, func() {})
		began := time.Now()
		_, _, err := q.ask(nil, dependency.QueryOptions{WaitIndex: 7, WaitTime: 32 * time.Second})
		assert.EqualError(t, err, "no answer within 49s")
		assert.Equal(t, 49*time.Second, time.Since(began))

		go q.renew()
		_, _, err = q.ask(nil, dependency.QueryOptions{WaitIndex: 7, WaitTime: 32 * time.Second})
		assert.Equal(t, errRenewed, err)
		assert.Empty(t, q.again, "the next request isn't cancelled too")

		go q.Stop()
		_, _, err = q.ask(nil, dependency.QueryOptions{WaitIndex: 7, WaitTime: 32 * time.Second})
		assert.Equal(t, dependency.ErrStopped, err)
	})
}

func TestManyQueriesWaitForLess(t *testing.T) {
	w := newQueries()
	assert.Equal(t, queryWait, w.wait())
	assert.Less(t, w.renewPause(), time.Second)
	for n := range 1000 {
		w.byName[fmt.Sprint(n)] = nil
	}
	assert.Equal(t, queryWait, w.wait())
	assert.Equal(t, queryWait/2, w.renewPause(), "there is room for four times a thousand, and two are in use")
	for n := range manyQueries {
		w.byName[fmt.Sprint(n)] = nil
	}
	assert.Equal(t, manyWait, w.wait())
	assert.Equal(t, manyWait, w.renewPause())

	asked := time.Duration(0)
	q := newQuery(askedFor{newServiceQuery("web", metadata.Reserved{}), &asked}, func() {})
	q.wait = w.wait
	_, _, err := q.Fetch(nil, &dependency.QueryOptions{WaitIndex: 7, WaitTime: queryWait})
	require.NoError(t, err)
	assert.Equal(t, manyWait, asked)
}

// askedFor is a query that records how long it should wait.
type askedFor struct {
	*serviceQuery
	wait *time.Duration
}

func (a askedFor) FetchContext(_ context.Context, _ *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	*a.wait = opts.WaitTime
	return nil, &dependency.ResponseMetadata{LastIndex: 8}, nil
}

// slowService is a query that Consul never answers.
type slowService struct{ *serviceQuery }

func (s slowService) FetchContext(ctx context.Context, _ *dependency.ClientSet, _ *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	<-ctx.Done()
	return nil, nil, ctx.Err()
}

func TestTheTimeoutIsLongerThanConsulMayWait(t *testing.T) {
	service, err := dependency.NewHealthServiceQuery("web|any")
	require.NoError(t, err)
	list, err := dependency.NewCatalogServicesQuery("")
	require.NoError(t, err)
	file, err := dependency.NewFileQuery("/etc/hostname")
	require.NoError(t, err)
	for _, tt := range []struct {
		name  string
		d     dependency.Dependency
		index uint64
		want  time.Duration
	}{
		{"our query, without an index", newServiceQuery("web", metadata.Reserved{}), 0, 15 * time.Second},
		{"our query, with an index", newServiceQuery("web", metadata.Reserved{}), 7, 49 * time.Second},
		{"consul-template's service query, without an index", service, 0, 15 * time.Second},
		{"consul-template's service query, with an index", service, 7, 49 * time.Second},
		{"the list of services, with an index", list, 7, 49 * time.Second},
		{"a file, which waits by itself", file, 7, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQuery(tt.d, func() {})
			assert.Equal(t, tt.want, q.limit(dependency.QueryOptions{WaitIndex: tt.index, WaitTime: 32 * time.Second}))
		})
	}
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		name          string
		err           error
		what, details string
	}{
		{"a refusal", pkgerrors.Wrap(api.StatusError{Code: 403, Body: "Permission denied: token lacks permission\n"}, "health.service(web|any)"),
			"Consul answers 403", "Permission denied: token lacks permission"},
		{"a refusal without a reason", pkgerrors.Wrap(api.StatusError{Code: 400}, "health.service(web|any)"),
			"Consul answers 400", "status 400 without a reason"},
		{"no connection", pkgerrors.Wrap(errors.New("dial tcp 127.0.0.1:8500: connection refused"), "health.service(web|any)"),
			"Consul gives no answer", "health.service(web|any): dial tcp 127.0.0.1:8500: connection refused"},
		{"too many connections", fmt.Errorf("get: %w", io.EOF),
			"Consul gives no answer", "get: EOF (there is one connection for every service: is limits.http_max_conns_per_client of the Consul agent high enough?)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.what, whatFails(tt.err))
			assert.Equal(t, tt.details, failing{err: tt.err}.details())
		})
	}
}

func TestAQueryThatStaysBehindHasStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuery(newScript(t), func() {})
		q.succeeded(7)
		time.Sleep(renewInterval)
		assert.False(t, q.stalled(6, 9), "there was a newer answer")
		assert.True(t, q.stalled(7, 9))
		<-q.again
		time.Sleep(renewInterval)
		assert.False(t, q.stalled(7, 9), "one renewal for each index")
		assert.True(t, q.stalled(7, 10))
		<-q.again
		assert.False(t, q.stalled(7, 11), "too soon")
		time.Sleep(renewInterval)
		q.failed(errScript)
		assert.False(t, q.stalled(7, 11), "a failing query is sent again anyway")
		q.succeeded(7)
		assert.True(t, q.stalled(7, 3), "the index has gone back")
	})
}

func TestEveryServiceIsCheckedInTurn(t *testing.T) {
	for _, n := range []int{0, 1, 9, 10, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			table, err := endpoints.Open("", endpoints.Options{})
			require.NoError(t, err)
			want := map[string]bool{catalogQuery: true}
			var services []endpoints.Service
			for i := range n {
				s := endpoints.Service{Name: fmt.Sprintf("s%d", i), Spec: endpoints.Spec{Protocol: endpoints.GRPC}, OK: true,
					Instances: []endpoints.Instance{{ID: "i", Node: "n", Address: "10.0.0.1", Port: 1 + i, Weight: 1, Status: endpoints.Critical}}}
				services = append(services, s)
				want[queryOf(s.Name)] = true
			}
			if n == 0 {
				want[queryOf("consul")] = true
			}
			table.Observe(time.Now(), services)
			m := &monitor{table: table}
			seen := map[string]bool{}
			for range checkRounds {
				turn := m.next()
				assert.LessOrEqual(t, len(turn), n/checkRounds+1)
				for _, name := range turn {
					seen[name] = true
				}
			}
			assert.Equal(t, want, seen)
		})
	}
}

func TestRetriesNeverEnd(t *testing.T) {
	for _, n := range []int{0, 1, 5, 7, 8, 100, 1 << 40} {
		wait := retry(n)
		assert.LessOrEqual(t, wait, retryMax)
		assert.Greater(t, wait, retryMin/2)
	}
}

func TestBothClientsUseTheSameSettings(t *testing.T) {
	in := clientInput(&api.Config{
		Address: "consul.example:8501", Scheme: "https", Token: "t", TokenFile: "f", Namespace: "n",
		HttpAuth: &api.HttpBasicAuth{Username: "u", Password: "p"},
		TLSConfig: api.TLSConfig{
			Address: "name", CAFile: "ca", CAPath: "dir", CertFile: "cert", KeyFile: "key", InsecureSkipVerify: true,
		},
	})
	// The token is that in the token file, so no client has to read it again.
	assert.Equal(t, []any{"consul.example:8501", "t", "", "n", true, "u", "p", true, false, "name", "ca", "dir", "cert", "key"},
		[]any{in.Address, in.Token, in.TokenFile, in.Namespace, in.AuthEnabled, in.AuthUsername, in.AuthPassword,
			in.SSLEnabled, in.SSLVerify, in.ServerName, in.SSLCACert, in.SSLCAPath, in.SSLCert, in.SSLKey})
	assert.True(t, clientInput(&api.Config{Address: "https://consul.example"}).SSLEnabled)
	assert.False(t, clientInput(&api.Config{Address: "127.0.0.1:8500", Scheme: "http"}).SSLEnabled)
}

// A broken proxy between lbctl and Consul may give such answers.
func TestAnAnswerThatCantBeReadIsAnErrorOfItsQuery(t *testing.T) {
	for _, answer := range []string{`[null]`, `[{"Service":{"Service":"web"}}]`, `[{"Node":{}}]`, `{}`} {
		agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
		defer agent.Close()
		clients := dependency.NewClientSet()
		require.NoError(t, clients.CreateConsulClient(&dependency.CreateConsulClientInput{Address: agent.URL}))
		_, _, err := newServiceQuery("web", metadata.Reserved{}).Fetch(clients, &dependency.QueryOptions{})
		assert.ErrorContains(t, err, "instances(web): ", answer)
	}
}
