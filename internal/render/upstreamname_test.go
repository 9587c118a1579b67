package render

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
	"lbctl/internal/resolver"
)

func TestUpstreamNamesAreReadableWhereTheyAreShort(t *testing.T) {
	assert.Equal(t, "grpc-hello_server", UpstreamName(endpoints.GRPC, "hello_server"))
	assert.Equal(t, "http-"+strings.Repeat("a", 58), UpstreamName(endpoints.HTTP, strings.Repeat("a", 58)))
	assert.Regexp(t, `^https_aaaaaaaaaaaaaaaaaaaaaaaa-[a-z2-7]{32}$`, UpstreamName(endpoints.HTTPS, strings.Repeat("a", 255)))
	assert.Regexp(t, `^grpc_hello-[a-z2-7]{32}$`, UpstreamName(endpoints.GRPC, "Hello"))
}

// TestUpstreamNamesAreBoundedAndUnique takes names that differ by case only, or after
// as many letters as fit, and such as are made to get the upstream of another service.
func TestUpstreamNamesAreBoundedAndUnique(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9_-]{1,63}$`)
	services := []string{"web", "Web", "WEB", "web-2", "web-3", "s-web", "S-web"}
	for _, length := range []int{56, 57, 58, 59, 63, 64, 245, 254, 255} {
		for _, end := range []string{"a", "A", "b", "-", "_"} {
			services = append(services, strings.Repeat("x", length-1)+end)
		}
	}
	protocols := []endpoints.Protocol{endpoints.GRPC, endpoints.GRPCS, endpoints.HTTP, endpoints.HTTPS, endpoints.TCP}
	for _, service := range services { // a service that is called as another's upstream, or as a part of it
		for _, p := range protocols {
			name := UpstreamName(p, service)
			part := name[len(p)+1:] // after "grpc-" or "grpc_"
			services = append(services, name, part, "_"+part)
		}
	}
	seen := map[string]string{}
	for _, service := range services {
		for _, p := range protocols {
			name, whose := UpstreamName(p, service), fmt.Sprintf("%s %s", p, service)
			assert.Regexp(t, label, name, whose)
			assert.LessOrEqual(t, len(resolver.Host(name)), 255, whose)
			if other, ok := seen[name]; ok && other != whose {
				assert.Fail(t, "one name for two services", "%s: %s and %s", name, whose, other)
			}
			seen[name] = whose
		}
	}
}
