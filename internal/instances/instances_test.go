package instances

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy/policytest"
)

// bench is a table and an Index of it, with a clock of their own.
type bench struct {
	t     *testing.T
	table *endpoints.Table
	index *Index
	now   time.Time
	dns   map[string][]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	b := &bench{t: t, table: table, now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), dns: map[string][]string{}}
	b.index = New(table, func(host string) []string { return b.dns[host] })
	b.index.now = func() time.Time { return b.now }
	return b
}

// observe has the table see these services, and lets the Index look again.
func (b *bench) observe(services ...endpoints.Service) {
	b.now = b.now.Add(interval)
	b.table.Observe(b.now, services)
}

func catalogued(name string, protocol endpoints.Protocol, revision uint64, instances ...endpoints.Instance) endpoints.Service {
	return endpoints.Service{
		Name: name, OK: true, Revision: revision, Instances: instances,
		Spec: endpoints.Spec{Protocol: protocol, Routes: []endpoints.Route{{Host: name}}},
	}
}

func instance(id, address string, status endpoints.Status) endpoints.Instance {
	return endpoints.Instance{ID: id, Node: "n", Address: address, Port: 80, Weight: 1, Status: status, Version: "v1"}
}

// id is the instance of a service at an address; "" if there is none.
func (b *bench) id(service, address string) string {
	if found := b.index.Find([]byte(service), []byte(address)); found != nil {
		return found.ID
	}
	return ""
}

func TestFind(t *testing.T) {
	b := newBench(t)
	b.dns["db.example"] = []string{"10.0.9.1", "fd00::0009", "no address"}
	b.observe(
		catalogued("web", endpoints.HTTP, 1, instance("web-1", "10.0.0.1", endpoints.Passing), instance("web-2", "fd00:0::2", endpoints.Critical)),
		catalogued("db", endpoints.GRPCS, 1, instance("db-1", "db.example", endpoints.Passing)),
	)
	assert.Equal(t, &Instance{Service: "web", Node: "n", ID: "web-1", Endpoint: "10.0.0.1:80", Version: "v1"},
		b.index.Find([]byte("web"), []byte("10.0.0.1:80")))
	assert.Equal(t, "web-2", b.id("web", "[fd00::2]:80"), "as nginx writes it; its last requests end after its check failed")
	assert.Equal(t, "db-1", b.id("db", "10.0.9.1:80"))
	assert.Equal(t, "db-1", b.id("db", "[fd00::9]:80"))
	assert.Equal(t, "db.example:80", b.index.Find([]byte("db"), []byte("10.0.9.1:80")).Endpoint)
	for _, unknown := range []string{"http_web", "127.0.0.1:0", "", "10.0.0.1:81", "unix:/run/auth.sock"} {
		assert.Empty(t, b.id("web", unknown))
	}
	assert.Empty(t, b.id("db", "10.0.0.1:80"), "another service's")
	assert.Empty(t, b.id("", "10.0.0.1:80"))

	b.dns["db.example"] = []string{"10.0.9.7"}
	b.now = b.now.Add(interval)
	assert.Equal(t, "db-1", b.id("db", "10.0.9.7:80"), "the name has another address, and the table has not changed")

	assert.Zero(t, testing.AllocsPerRun(100, func() { b.index.Find([]byte("web"), []byte("10.0.0.1:80")) }))
}

func TestAnInstanceIsRememberedAfterItHasLeft(t *testing.T) {
	b := newBench(t)
	one, two := instance("web-1", "10.0.0.1", endpoints.Passing), instance("web-2", "10.0.0.2", endpoints.Passing)
	b.observe(catalogued("web", endpoints.HTTP, 1, one, two), catalogued("old", endpoints.HTTP, 1, one))
	require.Equal(t, "web-1", b.id("web", "10.0.0.1:80"))
	one.Status = endpoints.Critical // else the table holds it
	b.observe(catalogued("web", endpoints.HTTP, 2, one, two), catalogued("old", endpoints.HTTP, 2, one))
	b.observe(catalogued("web", endpoints.HTTP, 3, two))
	require.Equal(t, "web-1", b.id("web", "10.0.0.1:80"))
	require.Equal(t, "web-1", b.id("old", "10.0.0.1:80"))

	b.now = b.now.Add(Remembered - interval)
	assert.Equal(t, "web-1", b.id("web", "10.0.0.1:80"))
	b.now = b.now.Add(2 * interval)
	assert.Empty(t, b.id("web", "10.0.0.1:80"), "though the table has not changed")
	assert.Empty(t, b.id("old", "10.0.0.1:80"))
	assert.Nil(t, b.index.Service([]byte("old")))
	assert.Equal(t, "web-2", b.id("web", "10.0.0.2:80"))

	b.observe(catalogued("web", endpoints.HTTP, 4, two))
	b.observe(catalogued("web", endpoints.HTTP, 5, instance("web-3", "10.0.0.2", endpoints.Passing)))
	assert.Equal(t, "web-3", b.id("web", "10.0.0.2:80"), "another one has taken its address")
}

func TestANewInstanceIsFoundSoon(t *testing.T) {
	b := newBench(t)
	b.observe(catalogued("web", endpoints.HTTP, 1, instance("web-1", "10.0.0.1", endpoints.Passing)))
	require.Equal(t, "web-1", b.id("web", "10.0.0.1:80"))
	b.table.Observe(b.now, []endpoints.Service{catalogued("web", endpoints.HTTP, 2, instance("web-1", "10.0.0.1", endpoints.Passing), instance("web-2", "10.0.0.2", endpoints.Passing))})
	b.now = b.now.Add(missedInterval)
	assert.Equal(t, "web-2", b.id("web", "10.0.0.2:80"))
}

func TestService(t *testing.T) {
	b := newBench(t)
	shop := catalogued("shop", endpoints.GRPC, 1, instance("shop-1", "10.0.0.1", endpoints.Passing))
	b.observe(shop, catalogued("web", endpoints.HTTPS, 1))
	assert.Equal(t, &Service{Name: "shop", GRPC: true}, b.index.Service([]byte("shop")))
	assert.Equal(t, &Service{Name: "web"}, b.index.Service([]byte("web")))
	assert.Nil(t, b.index.Service([]byte("other")))
	assert.Nil(t, b.index.Service(nil))

	shop.Revision, shop.Policy = 2, policytest.Settings("maintenance.enabled", "on")
	b.observe(shop)
	assert.True(t, b.index.Service([]byte("shop")).Maintenance)
}
