package admin

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/routing"
)

func TestRequestsOfURLs(t *testing.T) {
	for _, c := range []struct {
		request Request
		want    routing.Request
		err     string
	}{
		{request: Request{URL: "grpc://a.test:5000/p.S/M"}, want: routing.Request{HTTP: routing.HTTP2, Method: "POST", Host: "a.test:5000", Target: "/p.S/M"}},
		{request: Request{URL: "HTTP://A.test"}, want: routing.Request{Method: "GET", Host: "A.test", Target: "/"}},
		{request: Request{URL: "http://[::1]:8080/a%2Fb/../c?d#e"}, want: routing.Request{Method: "GET", Host: "[::1]:8080", Target: "/a%2Fb/../c?d#e"}},
		{request: Request{URL: "https://a?x", Method: "PUT"}, want: routing.Request{Method: "PUT", Host: "a", Target: "/?x"}},
		{
			request: Request{URL: "http://a/", Headers: []string{"x-v:  1 ", "HOST: b.test", "X-Empty:"}},
			want:    routing.Request{Method: "GET", Host: "b.test", Target: "/", Headers: []routing.Header{{Name: "x-v", Value: "1"}, {Name: "X-Empty"}}},
		},
		{request: Request{URL: "a.test/x"}, err: `"a.test/x": want a URL like "grpc://localhost/protos.Ping/SayHello"`},
		{request: Request{URL: "tcp://a.test/x"}, err: "with the scheme grpc, grpcs, http or https"},
		{request: Request{URL: "http:///x"}, err: `"http:///x" has no host`},
		{request: Request{URL: "grpc://a/p.S/M", Method: "GET"}, err: `method "GET": every gRPC call is a POST`},
		{request: Request{URL: "http://a/", Headers: []string{"x"}}, err: `header "x": want "Name: value"`},
	} {
		target, err := parseTarget(c.request.URL)
		var got routing.Request
		if err == nil {
			got, err = target.request(c.request)
		}
		if c.err != "" {
			assert.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err, c.request.URL)
		assert.Equal(t, c.want, got)
	}
}

func TestListenersOfURLs(t *testing.T) {
	all := []routing.Listener{
		{Name: "grpc", Protocol: endpoints.GRPC, Addresses: []string{"0.0.0.0:5000", "[::]:5000"}},
		{Name: "http", Protocol: endpoints.HTTP, Addresses: []string{"0.0.0.0:8080"}},
		{Name: "inside", Protocol: endpoints.HTTP, Addresses: []string{"10.0.0.1:8081"}},
	}
	for url, want := range map[string]string{
		"grpc://a/": "grpc", "grpc://a:5000/": "grpc", "http://a/": "http", "http://a:8081/": "inside", "http://[::1]:8080/": "http",
		"http://a:5000/": "there is no listener for http on port 5000; there is http at 0.0.0.0:8080, and inside at 10.0.0.1:8081",
		"grpcs://a/":     "there is no listener for grpcs: 'lbctl routes' lists them",
	} {
		target, err := parseTarget(url)
		require.NoError(t, err)
		got, err := target.listener(all)
		if err != nil {
			assert.EqualError(t, err, want)
			continue
		}
		assert.Equal(t, want, got.Name, url)
	}
	target, err := parseTarget("http://a/")
	require.NoError(t, err)
	_, err = target.listener(nil)
	assert.EqualError(t, err, "there is no listener: lbctl has no configuration yet")
}
