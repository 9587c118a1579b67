package registration

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func parse(env map[string]string, args ...string) (Config, error) {
	flags := pflag.NewFlagSet("registrar", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		return Config{}, err
	}
	return Parse(flags, func(name string) string { return env[name] })
}

func TestParse(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	minimal := Config{
		Name: "hello_server", Port: 7777, ID: fmt.Sprintf("hello_server-%s-7777", host),
		Weights:    api.AgentWeights{Passing: 1, Warning: 1},
		Reflection: true,
		Check: Check{
			Type: CheckGRPC, TLS: TLSOff, Interval: 2 * time.Second, Timeout: time.Second,
			SuccessBeforePassing: 1, FailuresBeforeCritical: 2, DeregisterAfter: 10 * time.Minute,
		},
		Drain: 5 * time.Second, StopTimeout: 10 * time.Second, ReadyTimeout: 10 * time.Second,
		ConsulAddr: "127.0.0.1:8500", Attempts: 10, AttemptDelay: time.Second,
	}
	tests := []struct {
		name string
		env  map[string]string
		args []string
		want func(c *Config)
	}{
		{name: "name and port are enough"},
		{
			name: "the usual environment",
			env: map[string]string{
				"CONSUL_PORT": "8600", "TAGS": "grpc_server, v1,,v1",
				"HEALTH_CHECK_TYPE": "http", "HEALTH_CHECK_ENDPOINT": "http://127.0.0.1:9119/readyz",
			},
			want: func(c *Config) {
				c.ConsulAddr = "127.0.0.1:8600"
				c.Tags = []string{"grpc_server", "v1"}
				c.Check.Type, c.Check.Endpoint = CheckHTTP, "http://127.0.0.1:9119/readyz"
			},
		},
		{
			name: "a flag wins over its variable",
			env:  map[string]string{"DRAIN": "1s", "TAGS": "a", "META": "k=v", "WEIGHT": "3"},
			args: []string{"--drain=0s", "--tags=b", "--tags", "c,d", "--meta", "x=1,2=3", "--meta=y=", "--weight=10/2"},
			want: func(c *Config) {
				c.Drain = 0
				c.Tags = []string{"b", "c", "d"}
				c.Meta = map[string]string{"x": "1,2=3", "y": ""}
				c.Weights = api.AgentWeights{Passing: 10, Warning: 2}
			},
		},
		{
			name: "an empty variable counts as not set",
			env:  map[string]string{"DRAIN": "", "HEALTH_CHECK_TYPE": " ", "META": ""},
		},
		{
			name: "a comma in META starts a pair only when an equals sign follows",
			env:  map[string]string{"META": "lb-host=a.example,b.example, lb-path=/x,"},
			want: func(c *Config) { c.Meta = map[string]string{"lb-host": "a.example,b.example", "lb-path": "/x"} },
		},
		{
			name: "Consul's own address variable wins over the port",
			env:  map[string]string{"CONSUL_HTTP_ADDR": "https://consul:8501", "CONSUL_PORT": "8600"},
			want: func(c *Config) { c.ConsulAddr = "https://consul:8501" },
		},
		{
			name: "the port as a flag wins over Consul's address variable",
			env:  map[string]string{"CONSUL_HTTP_ADDR": "https://consul:8501"},
			args: []string{"--consul-port=8600"},
			want: func(c *Config) { c.ConsulAddr = "127.0.0.1:8600" },
		},
		{
			name: "everything about the check",
			args: []string{
				"--check-type=grpc", "--check-endpoint=[::1]:7777/protos.Ping", "--check-tls=skip-verify", "--check-interval=500ms",
				"--check-timeout=200ms", "--successes=2", "--failures=3", "--deregister-after=never",
			},
			want: func(c *Config) {
				c.Check = Check{
					Type: CheckGRPC, Endpoint: "[::1]:7777/protos.Ping", TLS: TLSSkipVerify, Interval: 500 * time.Millisecond,
					Timeout: 200 * time.Millisecond, SuccessBeforePassing: 2, FailuresBeforeCritical: 3,
				}
			},
		},
		{
			name: "the rest",
			args: []string{"--address=10.0.0.7", "--id=web:1", "--ready-timeout=1m", "--stop-timeout=2s", "--attempts=3", "--attempt-delay=10ms"},
			want: func(c *Config) {
				c.Address, c.ID = "10.0.0.7", "web:1"
				c.ReadyTimeout, c.StopTimeout = time.Minute, 2*time.Second
				c.Attempts, c.AttemptDelay = 3, 10*time.Millisecond
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			env := map[string]string{"APP_NAME": "hello_server", "APP_PORT": "7777"}
			maps.Copy(env, test.env)
			want := minimal
			if test.want != nil {
				test.want(&want)
			}
			got, err := parse(env, test.args...)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

func TestParseMistakes(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		args []string
		want []string
	}{
		{
			name: "nothing given",
			env:  map[string]string{"APP_NAME": "", "APP_PORT": ""},
			want: []string{
				"APP_NAME (or --name) is not set, want the name of the service, for example hello_server",
				"APP_PORT (or --port) is not set, want the port the server listens on, for example 7777",
			},
		},
		{
			name: "all mistakes at once, each named as the user named it",
			env: map[string]string{
				"APP_NAME": "a b", "APP_PORT": "70000", "HEALTH_CHECK_TYPE": "script", "CHECK_TIMEOUT": "1",
				"WEIGHT": "1/x", "CONSUL_PORT": "consul",
			},
			args: []string{"--deregister-after=30s", "--failures=0", "--address=10.0.0.7:80"},
			want: []string{
				`APP_NAME: "a b" is not a service name, want letters, digits, '_', '-' and '.', at most 128, starting with a letter or digit`,
				`APP_PORT: "70000" is not a port, want a number from 1 to 65535`,
				`WEIGHT: "1/x" is not a weight, want a number from 1 to 65535, or two such as 10/1 for passing and warning`,
				`--address: "10.0.0.7:80" is not an address callers can use, want an IP address or a host name, without a port, for example 10.0.0.7`,
				`HEALTH_CHECK_TYPE: "script" unknown, want one of ["grpc" "http" "tcp" "ttl"]`,
				`CHECK_TIMEOUT: "1" is not a time, want a number with its unit, for example 500ms, 5s or 2m`,
				`--failures: "0" does not fit, want a number from 1 to 1000`,
				`--deregister-after: "30s" is too short, want at least 1m0s, or never`,
				`CONSUL_PORT: "consul" is not a port, want a number from 1 to 65535`,
			},
		},
		{
			name: "metadata that Consul would refuse",
			env: map[string]string{
				"META": "lb.host=a,b=" + strings.Repeat("x", 513) + ",consul-x=1,c=1,c=2,registrar-owner=me",
			},
			want: []string{
				`META: key "lb.host" is not one Consul takes, want letters, digits, '_' and '-', at most 128; ` +
					`the value of key "b" has 513 bytes, want at most 512; ` +
					`key "consul-x" starts with consul-, which Consul keeps for itself, want another; ` +
					`key "c" is given twice, want it once; ` +
					`key "registrar-owner" is the registrar's own, want another`,
			},
		},
		{
			name: "metadata that is no pair",
			args: []string{"--meta=lb-host"},
			want: []string{`--meta: "lb-host" is not a pair, want key=value, for example lb-host=www.example.com`},
		},
		{
			name: "an endpoint that doesn't fit the default type",
			env:  map[string]string{"HEALTH_CHECK_ENDPOINT": "http://127.0.0.1/health"},
			want: []string{`HEALTH_CHECK_ENDPOINT: "http://127.0.0.1/health" is not a gRPC endpoint, want host:port or host:port/package.Service, for example 127.0.0.1:7777`},
		},
		{
			name: "an endpoint that doesn't fit http",
			env:  map[string]string{"HEALTH_CHECK_TYPE": "http"},
			args: []string{"--check-endpoint=127.0.0.1:80"},
			want: []string{`--check-endpoint: "127.0.0.1:80" is not a URL, want one like http://127.0.0.1:8080/health, or a path like /health`},
		},
		{
			name: "an endpoint that doesn't fit tcp",
			env:  map[string]string{"HEALTH_CHECK_TYPE": "tcp", "HEALTH_CHECK_ENDPOINT": ":80", "HEALTH_CHECK_TLS": "verify"},
			want: []string{
				`HEALTH_CHECK_ENDPOINT: ":80" is not a TCP endpoint, want host:port, for example 127.0.0.1:5432`,
				`HEALTH_CHECK_TLS: "verify" given for a check of type tcp, want off, or a check of type grpc or http`,
			},
		},
		{
			name: "an endpoint that does not fit to the protocol",
			env:  map[string]string{"TAGS": "http_server", "HEALTH_CHECK_ENDPOINT": "127.0.0.1:80"},
			want: []string{`HEALTH_CHECK_ENDPOINT: "127.0.0.1:80" is not a URL, want one like http://127.0.0.1:8080/health, or a path like /health (the check is of type http by META and TAGS; HEALTH_CHECK_TYPE sets another)`},
		},
		{
			name: "an endpoint for a heartbeat",
			env:  map[string]string{"HEALTH_CHECK_TYPE": "ttl", "HEALTH_CHECK_ENDPOINT": "127.0.0.1:80"},
			want: []string{`HEALTH_CHECK_ENDPOINT: "127.0.0.1:80" given for a check of type ttl, which asks nothing; want none`},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			env := map[string]string{"APP_NAME": "hello_server", "APP_PORT": "7777"}
			maps.Copy(env, test.env)
			_, err := parse(env, test.args...)
			require.Error(t, err)
			assert.Equal(t, test.want, strings.Split(err.Error(), "\n"))
		})
	}
}

func TestCheckFollowsTheProtocol(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want CheckType
		tls  TLSMode
	}{
		{"no protocol", nil, CheckGRPC, TLSOff},
		{"the tag of gRPC", []string{"--tags=v1,grpc_server"}, CheckGRPC, TLSOff},
		{"the tag of HTTP", []string{"--tags=http_server"}, CheckHTTP, TLSOff},
		{"both tags", []string{"--tags=http_server,grpc_server"}, CheckGRPC, TLSOff},
		{"the metadata", []string{"--meta=lb-protocol=HTTP", "--tags=grpc_server"}, CheckHTTP, TLSOff},
		{"HTTPS", []string{"--meta=lb-protocol=https"}, CheckHTTP, TLSSkipVerify},
		{"gRPC with TLS", []string{"--meta=lb-protocol=grpcs"}, CheckGRPC, TLSSkipVerify},
		{"TCP", []string{"--meta=lb-protocol=tcp"}, CheckTCP, TLSOff},
		{"a port for TCP", []string{"--meta=lb-port=6379"}, CheckTCP, TLSOff},
		{"a protocol that is not known", []string{"--meta=lb-protocol=udp"}, CheckGRPC, TLSOff},
		{"another type is given", []string{"--meta=lb-protocol=https", "--check-type=tcp"}, CheckTCP, TLSOff},
		{"TLS is given", []string{"--meta=lb-protocol=https", "--check-tls=off"}, CheckHTTP, TLSOff},
		{"a path of the server", []string{"--meta=lb-protocol=https", "--check-endpoint=/health"}, CheckHTTP, TLSSkipVerify},
		{"another endpoint", []string{"--meta=lb-protocol=grpcs", "--check-endpoint=127.0.0.1:1"}, CheckGRPC, TLSOff},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := parse(map[string]string{"APP_NAME": "a", "APP_PORT": "1"}, test.args...)
			require.NoError(t, err)
			assert.Equal(t, test.want, cfg.Check.Type)
			assert.Equal(t, test.tls, cfg.Check.TLS)
		})
	}
}

func TestTooManyPairs(t *testing.T) {
	var args []string
	for i := range 64 {
		args = append(args, fmt.Sprintf("--meta=k%d=v", i))
	}
	_, err := parse(map[string]string{"APP_NAME": "a", "APP_PORT": "1"}, args...)
	assert.EqualError(t, err, "--meta: 64 pairs, want at most 63: Consul takes 64, and the others are the registrar's own")
	_, err = parse(map[string]string{"APP_NAME": "a", "APP_PORT": "1", "METRICS": ":9778"}, args[1:]...)
	assert.EqualError(t, err, "--meta: 63 pairs, want at most 62: Consul takes 64, and the others are the registrar's own")
}

// Every default must be a valid value of its setting.
func TestDefaultsAreValid(t *testing.T) {
	for _, s := range Settings() {
		if s.Default == "" || strings.HasPrefix(s.Default, "(") {
			continue
		}
		var cfg Config
		assert.NoError(t, s.set(&cfg, []string{s.Default}), s.Flag)
	}
}

func TestTarget(t *testing.T) {
	tests := []struct {
		name    string
		check   Check
		address string
		want    string
	}{
		{"gRPC asks the server's port on this machine", Check{Type: CheckGRPC, TLS: TLSOff}, "", "127.0.0.1:7777"},
		{"gRPC asks the registered address with the agent elsewhere", Check{Type: CheckGRPC, TLS: TLSOff}, "10.0.0.7", "10.0.0.7:7777"},
		{"an IPv6 address gets brackets", Check{Type: CheckTCP, TLS: TLSOff}, "fd00::7", "[fd00::7]:7777"},
		{"an endpoint is not changed", Check{Type: CheckGRPC, TLS: TLSOff, Endpoint: "127.0.0.1:1/a.B"}, "10.0.0.7", "127.0.0.1:1/a.B"},
		{"HTTP asks for the root", Check{Type: CheckHTTP, TLS: TLSOff}, "", "http://127.0.0.1:7777/"},
		{"HTTP accepts a path", Check{Type: CheckHTTP, TLS: TLSVerify, Endpoint: "/health?x=1"}, "10.0.0.7", "https://10.0.0.7:7777/health?x=1"},
		{"a heartbeat has no target", Check{Type: CheckTTL, TLS: TLSOff}, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, test.check.target(test.address, 7777))
		})
	}
}
