package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
)

func TestServicesNamedByNginx(t *testing.T) {
	const conf = `map $host $own {
    default "";
    api.example api;
    web.example "grpc-web";
}
upstream grpc-my-web {
    server 10.0.0.1:80;
    server 10.0.0.2:80 weight=x;
}
upstream grpc-api {
    # of grpc-web
    server 10.0.0.3:80;
}
server {
    location /api/ {
        set $lb_service api;
        grpc_pass grpc://grpc-api;
    }
    location /web/ {
        grpc_pass grpc://grpc-web;
    }
    listen nowhere;
}`
	tests := []struct {
		name  string
		why   string
		names []string
		want  string
	}{
		{"the line names it", `nginx -t: conflicting parameter "api.example" in own.conf:3`, []string{"api", "web"}, "api"},
		{"the line has its upstream", `nginx -t: unexpected "}" in own.conf:4`, []string{"api", "web"}, "web"},
		{"the block has its upstream", `nginx -t: invalid parameter "weight=x" in own.conf:8`, []string{"api", "my-web"}, "my-web"},
		{"the end of a name may be another's name", `nginx -t: invalid parameter "weight=x" in own.conf:8`, []string{"my-web", "web"}, ""},
		{"only suspects count", `nginx -t: no port in upstream in own.conf:20`, []string{"web", "other"}, "web"},
		{"a block with two names identifies no service", `nginx -t: host not found in own.conf:12`, []string{"api", "web"}, ""},
		{"a block around many identifies no service", `nginx -t: host not found in "nowhere" of the "listen" directive in own.conf:22`, []string{"api", "web"}, ""},
		{"a line outside of all blocks identifies no service", `nginx -t: unexpected end of file in own.conf:23`, []string{"api"}, ""},
		{"a part of a word is no name", `nginx -t: invalid parameter "weight=x" in own.conf:8`, []string{"serv", "10"}, ""},
		{"there is no such line", `nginx -t: something in own.conf:99`, []string{"api"}, ""},
		{"there is no such file", `nginx -t: something in /etc/nginx/mime.types:3`, []string{"api"}, ""},
		{"there is no place", `nginx -t: no "events" section in configuration`, []string{"api"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := namedAt(tt.why, map[string][]byte{"own.conf": []byte(conf)}, tt.names)
			if !ok {
				got = ""
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

// hundred returns a hundred services, of which the last seventy are suspects.
func hundred() (entries []endpoints.Entry, suspects []endpoints.Suspect) {
	for n := range 100 {
		e := endpoints.Entry{Service: endpoints.Service{Name: fmt.Sprint("s", n)}}
		entries = append(entries, e)
		if n >= 30 {
			suspects = append(suspects, endpoints.Suspect{Entry: e})
		}
	}
	return entries, suspects
}

// picky refuses a configuration at the first line with a bad service, and names the line as
// nginx does.
func picky(bad ...string) func([]endpoints.Entry) (map[string][]byte, string, error) {
	return func(entries []endpoints.Entry) (map[string][]byte, string, error) {
		var lines []string
		why := ""
		for _, e := range entries {
			lines = append(lines, e.Name+" {")
			if slices.Contains(bad, e.Name) && why == "" {
				why = fmt.Sprintf("bad %s in conf:%d", e.Name, len(lines))
			}
			lines = append(lines, "}")
		}
		return map[string][]byte{"conf": []byte(strings.Join(lines, "\n"))}, why, nil
	}
}

func TestSearch(t *testing.T) {
	none := func(string, map[string][]byte, []string) (string, bool) { return "", false }
	liar := func(_ string, _ map[string][]byte, names []string) (string, bool) { return names[0], true }
	tests := []struct {
		name  string
		bad   []string
		named func(string, map[string][]byte, []string) (string, bool)
		want  []string
		tries int // at most
	}{
		{"the one that nginx names", []string{"s77"}, namedAt, []string{"s77"}, 1},
		{"several that it names one after the other", []string{"s31", "s55", "s77"}, namedAt, []string{"s31", "s55", "s77"}, 3 + 3},
		{"one by halves", []string{"s77"}, none, []string{"s77"}, 1 + 7 + 1},
		{"several by halves", []string{"s31", "s55", "s77"}, none, []string{"s31", "s55", "s77"}, 1 + 3*8},
		{"the first suspect", []string{"s30"}, none, []string{"s30"}, 1 + 7 + 1},
		{"the last suspect", []string{"s99"}, none, []string{"s99"}, 1 + 7 + 1},
		{"one that isn't suspected", []string{"s3"}, none, nil, 1},
		{"one that isn't suspected, beside one that is", []string{"s3", "s77"}, namedAt, nil, 1},
		{"one that isn't suspected, after one that nginx names", []string{"s77", "s3"}, func(why string, files map[string][]byte, names []string) (string, bool) {
			if slices.Contains(names, "s77") {
				return "s77", true
			}
			return "", false
		}, nil, 2},
		{"a wrongly named service is released", []string{"s33"}, liar, []string{"s33"}, 4 + 4},
		{"more than can be found at once", []string{"s31", "s33", "s35", "s37", "s39", "s41", "s43", "s45"}, none,
			[]string{"s31", "s33", "s35", "s37", "s39"}, bisectTries + 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newBisection(hundred())
			s.try, s.named = picky(tt.bad...), tt.named
			files, why, _ := s.try(s.entries)
			var got []string
			for _, c := range s.run(files, why) {
				got = append(got, c.service)
				assert.True(t, strings.HasPrefix(c.why, "bad "+c.service+" "), c.why)
			}
			slices.Sort(got)
			assert.Equal(t, tt.want, got)
			assert.LessOrEqual(t, s.tries, tt.tries)
		})
	}
	t.Run("nginx -t can't run", func(t *testing.T) {
		s := newBisection(hundred())
		s.try = func([]endpoints.Entry) (map[string][]byte, string, error) { return nil, "", errors.New("disk full") }
		assert.Empty(t, s.run(nil, "bad"))
	})
}
