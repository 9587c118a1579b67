package routing

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
)

func TestOrder(t *testing.T) {
	want := []endpoints.Route{
		{Host: "a.b.test"},
		{Host: "z.test", Path: "/", Exact: true},
		{Host: "z.test", Path: "/long/path"},
		{Host: "z.test", Path: "/p", Method: "GET", Headers: "a=1,b=2"},
		{Host: "z.test", Path: "/p", Method: "GET", Headers: "a=1"},
		{Host: "z.test", Path: "/p", Method: "GET"},
		{Host: "z.test", Path: "/p", Method: "POST"},
		{Host: "z.test", Path: "/p", Headers: "a=1,b=2"},
		{Host: "z.test", Path: "/p", Headers: "a=1"},
		{Host: "z.test", Path: "/p", Headers: "b=1"},
		{Host: "z.test", Path: "/p"},
		{Host: "*.b.test"},
		{Host: "*.test", Path: "/shop.Cart"},
		{Host: "*.test", Path: "/shop.*"},
		{Host: "*.test"},
		{Path: "/x"},
		{},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Compare)
	assert.Equal(t, want, got)
	for n, a := range want {
		for m, b := range want {
			assert.Equal(t, n == m, Compare(a, b) == 0, "%v and %v", a, b)
			assert.Equal(t, n < m, Compare(a, b) < 0, "%v and %v", a, b)
		}
	}
}

func TestHosts(t *testing.T) {
	assert.Equal(t, []string{""}, Hosts(""))
	assert.Equal(t, []string{"test", ""}, Hosts("test"))
	assert.Equal(t, []string{"a.b.test", "*.b.test", "*.test", ""}, Hosts("a.b.test"))
	assert.Equal(t, []string{"*.b.test", "*.test", ""}, Hosts("*.b.test"))
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		family string
		route  endpoints.Route
		want   []Place
	}{
		{"http", endpoints.Route{}, []Place{{"/", false}}},
		{"http", endpoints.Route{Path: "/a"}, []Place{{"/a", true}, {"/a/", false}}},
		{"http", endpoints.Route{Path: "/a/"}, []Place{{"/a", true}, {"/a/", false}}},
		{"http", endpoints.Route{Path: "/a/", Exact: true}, []Place{{"/a/", true}}},
		{"grpc", endpoints.Route{Path: "/shop.*"}, []Place{{"/shop.", false}}},
		{"grpc", endpoints.Route{Path: "/shop.Cart"}, []Place{{"/shop.Cart/", false}}},
		{"grpc", endpoints.Route{Path: "/shop.Cart/Add"}, []Place{{"/shop.Cart/Add", true}}},
	} {
		assert.Equal(t, c.want, Places(c.family, c.route), "%s %s", c.family, c.route)
	}
	assert.Equal(t, []Place{{"/a.b/c", true}, {"/a.b/", false}, {"/a.", false}, {"/", false}}, slices.Collect(Place{"/a.b/c", true}.Around()))
	assert.Equal(t, []Place{{"/a.", false}, {"/", false}}, slices.Collect(Place{"/a.", false}.Around()))
}
