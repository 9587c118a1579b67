package render

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBlocksRepeatWhatTheyHide checks each block that has an add_header, or hides or sets a header
// on the way to an instance and back: by that it hides those outside of it, which all answers and
// requests must have.
func TestBlocksRepeatWhatTheyHide(t *testing.T) {
	t.Parallel()
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			settings := testSettings("1.30.6")
			if sc.settings != nil {
				sc.settings(&settings)
			}
			settings.Tracing = true
			c, err := offline(Options{Settings: settings}, parseAll(sc.registrations...), testNames())
			require.NoError(t, err)
			for name, content := range c.Files {
				if !strings.HasSuffix(name, ".conf") {
					continue
				}
				tree, err := parseConf(string(content))
				require.NoError(t, err)
				checkHidden(t, name, tree)
			}
		})
	}
}

func checkHidden(t *testing.T, where string, block []directive) {
	t.Helper()
	headers := map[string][]string{} // by directive
	for _, d := range block {
		if d.isBlk {
			checkHidden(t, where+" "+strings.Join(d.words, " "), d.block)
		} else if len(d.words) > 1 {
			headers[d.name()] = append(headers[d.name()], strings.ToLower(d.words[1]))
		}
	}
	asksLbctl := slices.ContainsFunc(block, func(d directive) bool { return slices.Equal(d.words, []string{"proxy_set_header", "Host", "lbctl"}) })
	for name, has := range headers {
		switch name {
		case "add_header", "proxy_hide_header", "grpc_hide_header":
			for _, header := range []string{"x-request-id", "traceparent"} {
				times := len(slices.DeleteFunc(slices.Clone(has), func(h string) bool { return h != header }))
				assert.Equal(t, 1, times, "%s: %s %s", where, name, header)
			}
		case "proxy_set_header", "grpc_set_header":
			if !asksLbctl && !slices.ContainsFunc(headers["include"], func(file string) bool { return strings.HasSuffix(file, "-headers.conf") }) {
				assert.Subset(t, has, []string{"traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"}, "%s: %s", where, name)
			}
		}
	}
}
