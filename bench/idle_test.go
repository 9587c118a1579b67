//go:build bench

package bench

import (
	"testing"
	"time"
)

// TestIdle measures the cost of lbctl while nothing changes: its memory, and its
// share of a core over SPAN (30s), with one gRPC service of four instances.
func TestIdle(t *testing.T) {
	s := newSite(t)
	span := duration(t, "SPAN", 30*time.Second)
	grpc := &fleet{site: s, name: grpcService, start: startGRPC}
	for range 4 {
		grpc.add(t)
	}
	r := newReport(t, "idle", "What lbctl costs while nothing changes")
	r.paragraph("One service of four instances, over %s.", span)
	var rows [][]string
	for _, m := range modes {
		b := startOurs(t, s, m.args)
		b.WaitServing(grpcService, len(grpc.running))
		before := ownTime(b.PID())
		time.Sleep(span)
		rows = append(rows, []string{m.name, mebibytes(resident(b.PID())), share(ownTime(b.PID())-before, span)})
	}
	r.table([]string{"", "memory", "of a core"}, rows)
	r.done()
	grpc.disband(t)
}
