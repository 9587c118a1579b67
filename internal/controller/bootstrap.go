package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// bootstrap is the bootstrap servers: nginx starts with them, and uses them until it
// reloads without them.
type bootstrap struct {
	// read has the bootstrap servers that nginx had read at the last check: lines of its
	// configuration by upstream, empty if lbctl doesn't know them.
	read  map[string]string
	since time.Time // when read last changed
	// tried has the upstreams whose bootstrap servers lbctl last tried to drop.
	tried   []string
	triedAt time.Time

	lines   bootstrapLines
	due     bool // the files must be written
	writing bool
	written chan writtenBootstrap
	failed  *failure            // no file could be written
	left    map[string]*failure // by upstream: its file could not be written
}

// writtenBootstrap is the result of writing bootstrap servers.
type writtenBootstrap struct {
	left map[string]error // by upstream
	err  error
}

// noteRead stores which bootstrap servers nginx has read, for the upstreams that it asks
// for.
func (b *bootstrap) noteRead(read map[string]string, asked map[string]bool, now time.Time) {
	askedRead := map[string]string{}
	for upstream, lines := range read {
		if asked[upstream] {
			askedRead[upstream] = lines
		}
	}
	if !equalLines(askedRead, b.read) {
		b.read, b.since = askedRead, now
	}
}

func equalLines(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for upstream, lines := range a {
		if other, ok := b[upstream]; !ok || other != lines {
			return false
		}
	}
	return true
}

// droppable lists the upstreams whose bootstrap servers nginx no longer needs. The list
// is empty until nginx needs none of them, or askPatience is over. later is true if a
// later call may list more.
func (d *delivery) droppable(now time.Time) (upstreams []string, later bool) {
	b := &d.bootstrap
	waiting := false
	for upstream := range b.read {
		if _, ok := d.answers[upstream]; !ok {
			continue // lbctl has no answer, so nginx has only the bootstrap servers
		}
		if d.endpoints.Known(upstream) {
			upstreams = append(upstreams, upstream)
		} else {
			waiting = true
		}
	}
	slices.Sort(upstreams)
	switch {
	case waiting && now.Sub(b.since) < askPatience:
		return nil, true
	case len(upstreams) > 0 && slices.Equal(upstreams, b.tried) && now.Sub(b.triedAt) < askPatience:
		return nil, true
	default:
		return upstreams, waiting
	}
}

func (b *bootstrap) dropped(now time.Time, upstreams []string) {
	b.tried, b.triedAt = upstreams, now
}

// forgetAttempt is for a new nginx, of which lbctl has not tried to drop any.
func (b *bootstrap) forgetAttempt() { b.tried, b.triedAt = nil, time.Time{} }

// outdated lists the upstreams whose bootstrap servers in nginx differ, or may differ,
// from their newest servers.
func (d *delivery) outdated() []string {
	var upstreams []string
	for upstream, lines := range d.bootstrap.read {
		targets, ok := d.answers[upstream]
		if ok && (lines == "" || lines != d.bootstrap.lines.of(upstream, targets)) {
			upstreams = append(upstreams, upstream)
		}
	}
	slices.Sort(upstreams)
	return upstreams
}

// servers returns the bootstrap servers to write, as lines by upstream: for the upstreams
// that nginx asks for, and for those of cfg, which may be nil.
func (d *delivery) servers(cfg *render.Configuration) map[string]string {
	servers := map[string]string{}
	for upstream, targets := range d.answers {
		if d.asked.upstreams[upstream] || d.coming.upstreams[upstream] {
			servers[upstream] = d.bootstrap.lines.of(upstream, targets)
		}
	}
	if cfg != nil {
		for upstream, targets := range cfg.Upstreams {
			servers[upstream] = d.bootstrap.lines.of(upstream, targets)
		}
	}
	return servers
}

// wrote stores the result of writing.
func (b *bootstrap) wrote(w writtenBootstrap) {
	b.writing = false
	b.failed = failedSince(b.failed, w.err)
	left := map[string]*failure{}
	for upstream, err := range w.left {
		left[upstream] = failedSince(b.left[upstream], err)
	}
	b.left = left
}

// writeBootstrapLater writes the bootstrap servers in a goroutine: now, or after the write
// that is running.
func (l *loop) writeBootstrapLater() {
	l.delivery.bootstrap.due = true
	l.writeBootstrap()
}

func (l *loop) writeBootstrap() {
	d := l.delivery
	b := &d.bootstrap
	if d.endpoints == nil || !b.due || b.writing || d.answers == nil {
		return // without answers, keep the files that an earlier process wrote
	}
	b.due, b.writing = false, true
	servers := d.servers(l.latest) // the same as in apply, which may write at the same time
	go func() {
		left, err := l.server.WriteBootstrapServers(servers)
		b.written <- writtenBootstrap{left, err}
	}()
}

// leftServices returns, by service, why its bootstrap servers can't be written.
func (b *bootstrap) leftServices(latest *render.Configuration) map[string]*failure {
	if len(b.left) == 0 || latest == nil {
		return nil
	}
	services := map[string]*failure{}
	for _, e := range latest.Entries {
		if f := b.left[render.UpstreamName(e.Protocol, e.Name)]; f != nil {
			services[e.Name] = f
		}
	}
	return services
}

// failedSince returns err as a failure that began when the failure before it began, if
// there is one. It returns nil if err is nil.
func failedSince(before *failure, err error) *failure {
	switch {
	case err == nil:
		return nil
	case before == nil:
		return &failure{err: err, since: time.Now()}
	default:
		return &failure{err: err, since: before.since}
	}
}

// bootstrapLines writes bootstrap servers as lines of nginx's configuration. It caches
// the last result for each upstream.
type bootstrapLines struct {
	marks nginx.Marks
	made  map[string]linesOf // by upstream
}

type linesOf struct {
	targets []resolver.Target
	text    string
}

// of returns the lines for an upstream; they are never empty.
func (l bootstrapLines) of(upstream string, targets []resolver.Target) string {
	if made, ok := l.made[upstream]; ok && resolver.SameTargets(made.targets, targets) {
		return made.text
	}
	var b strings.Builder
	for _, t := range targets {
		fmt.Fprintf(&b, "server %s weight=%d %s;\n", t.Addr, t.Weight, l.marks)
	}
	if len(targets) == 0 {
		b.WriteString("# no instance\n")
	}
	l.made[upstream] = linesOf{targets, b.String()}
	return b.String()
}
