package registrarcli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"

	"lbctl/internal/consultest"
)

// Answers of an agent or a server can have escape sequences and newlines. They must neither
// reach the terminal nor look like lines of the registrar.
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
	assert.Equal(t, 1, strings.Count(p.output(), "\nregistrar: "), "one line has the reason")
}

// A key or a tag that lbctl will not understand is registered, and the log says so.
func TestWarnsOfWhatLbctlDoesNotKnow(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "TAGS=http-server,lb-host=a.test", "META=lb-paht=/x,lb_port=1,registrar-note=y"))
	p.awaitLine(`problem="unknown key \"lb-paht\", did you mean lb-path?"`)
	p.awaitLine(`problem="unknown key \"lb_port\", did you mean lb-port?"`)
	p.awaitLine(`problem="tag \"lb-host=a.test\", want it as metadata, not as a tag"`)
	p.awaitLine(`msg="lbctl does not know the tag, so it will not balance the service" tag=http-server meant=http_server check=ttl`)
	awaitStatus(t, agent, api.HealthPassing)
	assert.NotContains(t, p.output(), "registrar-")
	p.signal(syscall.SIGTERM)
	assert.Zero(t, p.code())
}
