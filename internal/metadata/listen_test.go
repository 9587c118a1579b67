package metadata

import (
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

func TestAServiceNamesItsListeners(t *testing.T) {
	reserved := Reserved{Listeners: []Listener{{"grpc", "grpc"}, {"http", "http"}, {"internal", "http"}, {"https", "http"}}}
	for _, c := range []struct {
		name, protocol, listen string
		want                   []string
		problem                string
	}{
		{name: "none", protocol: "http", listen: " "},
		{name: "several", protocol: "https", listen: "internal, http,internal", want: []string{"http", "internal"}},
		{name: "one that does not exist", protocol: "http", listen: "intrenal",
			problem: `lb-listen "intrenal", want listeners of the balancer, which are grpc, http, internal, https, separated by commas; there is no "intrenal", did you mean "internal"?`},
		{name: "one of another protocol", protocol: "http", listen: "http,grpc",
			problem: `lb-listen "http,grpc", want listeners for http, which are http, internal, https; "grpc" is not one of them`},
		{name: "one for TCP", protocol: "tcp", listen: "http", problem: `lb-listen "http", want none, because lb-protocol "tcp" has a port of its own, lb-port`},
		{name: "a configuration", protocol: "http", listen: "http;}", problem: `there is no "http;}"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys := []string{"lb-protocol", c.protocol, "lb-listen", c.listen}
			if c.protocol == "tcp" {
				keys = append(keys, "lb-port", "6379")
			}
			s := Parse("x", []*api.ServiceEntry{consultest.Entry("x", "x-1", "10.0.0.1", 80, consultest.Meta(keys...))}, reserved)
			if c.problem == "" {
				require.Empty(t, s.Problems)
				assert.Equal(t, c.want, s.Listeners)
				return
			}
			require.Len(t, s.Problems, 1)
			assert.Contains(t, s.Problems[0], c.problem)
			assert.False(t, s.OK)
		})
	}
}
