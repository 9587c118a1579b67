package admin

import (
	"context"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/controller"
)

// stuck is a controller whose state can't be read.
type stuck struct {
	fake
	until chan struct{}
}

func (s *stuck) Status(context.Context) controller.Status {
	<-s.until
	return controller.Status{}
}

func TestNotAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{until: make(chan struct{})}
		w := httptest.NewRecorder()
		(&Server{Controller: s}).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/livez?verbose", nil))
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, "[-]state failed: lbctl does not work: its state can't be read\nlivez check failed\n", w.Body.String())
		close(s.until)
	})
}
