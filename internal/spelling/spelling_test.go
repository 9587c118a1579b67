package spelling

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNearest(t *testing.T) {
	known := []string{"lb-protocol", "lb-host", "lb-path", "lb-port", "lb-max-conns", "lb-min-instances"}
	for _, c := range []struct{ name, given, want string }{
		{"two letters changed places", "lb-paht", "lb-path"},
		{"a letter too many", "lb-hosts", "lb-host"},
		{"a letter too few", "lb-min-instance", "lb-min-instances"},
		{"other separators", "lb_host", "lb-host"},
		{"capitals", "LB-HOST", "lb-host"},
		{"no separator", "lbpath", "lb-path"},
		{"the start", "lb-proto", "lb-protocol"},
		{"more than the word", "lb-max-connections", "lb-max-conns"},
		{"another word", "lb-read-timeout", ""},
		{"another short word", "lb-group", ""},
		{"nothing", "", ""},
		{"a very long word", strings.Repeat("lb-path", 10000), ""},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, Nearest(c.given, known)) })
	}
	assert.Empty(t, Nearest("ab", []string{"cd"}), "a short word has no letter in common")
	assert.Equal(t, "http_server", Nearest("http-server", []string{"grpc_server", "http_server"}))
}
