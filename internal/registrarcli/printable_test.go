package registrarcli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
)

// What an agent or a server answers can hold escape sequences and newlines: they
// must not reach the terminal, nor look like lines of the registrar's own.
func TestAnswersOfOthersArePrintable(t *testing.T) {
	hostile := "\x1b]52;c;aGk=\a\u202e\x7f refused\nregistrar: all is well"
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodGet {
			http.Error(w, "no such service", http.StatusNotFound)
			return
		}
		http.Error(w, hostile, http.StatusBadRequest)
	}))
	t.Cleanup(agent.Close)
	p := launch(t, []string{
		"APP_NAME=web", "APP_PORT=7777", "HEALTH_CHECK_TYPE=ttl", "CONSUL_HTTP_ADDR=" + agent.URL, "REGISTER_ATTEMPTS=1",
	})
	assert.Equal(t, exitFailure, p.code())
	assert.Contains(t, p.output(), `\x1b]52;c;aGk=`)
	assert.Contains(t, p.output(), `\u202e`)
	for line := range strings.Lines(p.output()) {
		assert.False(t, strings.HasPrefix(line, "registrar: all is well"), "a forged line")
		for _, r := range strings.TrimSuffix(line, "\n") {
			assert.True(t, unicode.IsPrint(r), "%q in %q", r, line)
		}
	}
	assert.Equal(t, 1, strings.Count(p.output(), "\nregistrar: "), "one line tells why")
}
