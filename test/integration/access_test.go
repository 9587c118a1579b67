package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// site starts and registers an HTTP service.
func (s *system) site(t *testing.T, name string, meta map[string]string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %q", name, r.Header.Get("X-Lb-User"))
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	meta["lb-protocol"] = "http"
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: name, Address: "127.0.0.1", Port: number, Meta: meta,
	}))
	s.WaitServing(name, 1)
}

// status asks for a path from a local address, and returns the status of the answer.
func (s *system) status(from, path string) (int, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, to)
		},
	}}
	response, err := client.Get("http://" + s.HTTP + path)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

// waitStatus waits until a request from a local address gets a status.
func (s *system) waitStatus(from, path string, want int) {
	s.Eventually(fmt.Sprintf("%s gets %d for %s", from, want, path), func() error {
		got, err := s.status(from, path)
		if err == nil && got != want {
			err = fmt.Errorf("it gets %d", got)
		}
		return err
	})
}

// TestDenialsStayInForce denies a network, and then takes away Consul, lbctl and nginx.
func TestDenialsStayInForce(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		consul := consultest.Start(t, consultest.Persistent())
		s := &system{
			Balancer: lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Nginx: nginx}),
			agent:    consul, consul: consul.Client(),
		}
		s.site(t, "open", map[string]string{})
		s.site(t, "private", map[string]string{"lb-path": "/private"})
		do := func(args ...string) {
			_, err := s.Lbctl(args...)
			require.NoError(t, err)
		}
		s.waitStatus("127.0.0.2", "/", http.StatusOK)
		do("deny", "127.0.0.2", "--for", "1h", "-m", "a test")
		s.waitStatus("127.0.0.2", "/", http.StatusForbidden)
		s.waitStatus("127.0.0.1", "/", http.StatusOK)
		do("allow", "127.0.0.1", "--service", "private", "--only")
		s.waitStatus("127.0.0.3", "/private", http.StatusForbidden)
		s.waitStatus("127.0.0.1", "/private", http.StatusOK)
		s.waitStatus("127.0.0.3", "/", http.StatusOK)

		consul.Stop()
		s.StopLbctl()
		s.Nginx().Stop()
		s.StartLbctl()
		s.StartNginx()
		// The new lbctl renders from its snapshots, because Consul is away.
		s.Eventually("lbctl says that Consul is away", func() error { return problem(s.Balancer, "does not answer") })
		s.waitStatus("127.0.0.2", "/", http.StatusForbidden)
		s.waitStatus("127.0.0.3", "/private", http.StatusForbidden)
		s.waitStatus("127.0.0.1", "/private", http.StatusOK)

		consul.Start()
		consul.WaitReady()
		do("allow", "127.0.0.2")
		s.waitStatus("127.0.0.2", "/", http.StatusOK)
		s.waitStatus("127.0.0.3", "/private", http.StatusForbidden)
		_, err := s.consul.KV().Put(&api.KVPair{Key: "lb-access/networks/zz", Value: []byte("[")}, nil)
		require.NoError(t, err)
		s.Eventually("the broken document is named", func() error { return problem(s.Balancer, "access/networks/zz") })
		s.waitStatus("127.0.0.1", "/private", http.StatusOK)
	})
}

// withKey asks for a path with an API key, and returns the status and the body of the answer.
func (s *system) withKey(path, key string) (int, string, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+s.HTTP+path, nil)
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("X-API-Key", key)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// TestKeysAreChecked has the operator demand keys of a service's callers, and then takes away lbctl
// and Consul.
func TestKeysAreChecked(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		consul := consultest.Start(t, consultest.Persistent())
		s := &system{
			Balancer: lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Nginx: nginx}),
			agent:    consul, consul: consul.Client(),
		}
		s.site(t, "open", map[string]string{})
		s.site(t, "private", map[string]string{"lb-path": "/private"})
		out, err := s.Lbctl("key", "create", "shop", "-o", "json")
		require.NoError(t, err)
		var key struct{ Secret string }
		require.NoError(t, json.Unmarshal([]byte(out), &key))
		_, err = s.Lbctl("policy", "set", "private", "auth.keys=on")
		require.NoError(t, err)
		wait := func(what string, secret string, code int, body string) {
			s.Eventually(what, func() error {
				got, text, err := s.withKey("/private", secret)
				if err == nil && (got != code || body != "" && text != body) {
					err = fmt.Errorf("the answer is %d %q", got, text)
				}
				return err
			})
		}
		wait("nobody passes without a key", "", http.StatusUnauthorized, "not authenticated\n")
		wait("the key passes", key.Secret, http.StatusOK, `private for "shop"`)
		info, err := os.Stat(filepath.Join(s.StateDir, "run", "auth.sock"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

		s.KillLbctl()
		wait("nobody passes without lbctl", key.Secret, http.StatusServiceUnavailable, "the load balancer could not check who sends the request\n")
		s.waitStatus("127.0.0.1", "/", http.StatusOK)

		consul.Stop()
		s.StartLbctl()
		wait("the key passes, although Consul is away", key.Secret, http.StatusOK, "")
		wait("others don't", key.Secret+"x", http.StatusUnauthorized, "")

		consul.Start()
		consul.WaitReady()
		_, err = s.Lbctl("key", "revoke", "shop")
		require.NoError(t, err)
		wait("the revoked key does not pass", key.Secret, http.StatusUnauthorized, "")
		_, err = s.Lbctl("policy", "unset", "private", "auth.keys")
		require.NoError(t, err)
		wait("everybody passes", "", http.StatusOK, `private for ""`)
	})
}
