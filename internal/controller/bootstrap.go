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

// bootstrap is the bootstrap servers: those that nginx starts with, and keeps until a
// reload without them.
type bootstrap struct {
	// read is what nginx has read of them, as lines of its configuration by upstream,
	// at the last check; since when it is that. The lines are empty where they are not
	// known.
	read  map[string]string
	since time.Time
	// tried is the upstreams for which nginx was last to drop its bootstrap servers.
	tried   []string
	triedAt time.Time

	lines   bootstrapLines
	due     bool // they are to be written
	writing bool
	written chan writtenBootstrap
	failed  *failure            // to write them at all
	left    map[string]*failure // to write those of one upstream
}

// writtenBootstrap is what came of writing.
type writtenBootstrap struct {
	left map[string]error // by upstream
	err  error
}

// took takes note of what nginx has read, of the upstreams that it asks for.
func (b *bootstrap) took(read map[string]string, asked map[string]bool, now time.Time) {
	mine := map[string]string{}
	for upstream, lines := range read {
		if asked[upstream] {
			mine[upstream] = lines
		}
	}
	if !equalLines(mine, b.read) {
		b.read, b.since = mine, now
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

// needless is the upstreams whose bootstrap servers nginx no longer needs, once that is
// all of them, or the others have taken too long; later: some may be so later.
func (d *delivery) needless(now time.Time) (upstreams []string, later bool) {
	b := &d.bootstrap
	waiting := false
	for upstream := range b.read {
		if _, told := d.told[upstream]; !told {
			continue // it gets no answer, so nginx has no other servers
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

// outdated is the upstreams for which nginx uses bootstrap servers that are not, or may
// not be, those that the upstream has now.
func (d *delivery) outdated() []string {
	var upstreams []string
	for upstream, lines := range d.bootstrap.read {
		targets, told := d.told[upstream]
		if told && (lines == "" || lines != d.bootstrap.lines.of(upstream, targets)) {
			upstreams = append(upstreams, upstream)
		}
	}
	slices.Sort(upstreams)
	return upstreams
}

// servers is with which servers nginx is to start, as lines by upstream: those of the
// upstreams that it asks for, and those of cfg, if that is not nil.
func (d *delivery) servers(cfg *render.Configuration) map[string]string {
	servers := map[string]string{}
	for upstream, targets := range d.told {
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

// wrote takes what came of writing.
func (b *bootstrap) wrote(w writtenBootstrap) {
	b.writing = false
	b.failed = failedSince(b.failed, w.err)
	left := map[string]*failure{}
	for upstream, err := range w.left {
		left[upstream] = failedSince(b.left[upstream], err)
	}
	b.left = left
}

// writeBootstrapLater has the bootstrap servers written beside the loop.
func (l *loop) writeBootstrapLater() {
	l.delivery.bootstrap.due = true
	l.writeBootstrap()
}

func (l *loop) writeBootstrap() {
	d := l.delivery
	b := &d.bootstrap
	if d.endpoints == nil || !b.due || b.writing || d.told == nil {
		return // those that an earlier process wrote are better than none
	}
	b.due, b.writing = false, true
	servers := d.servers(l.latest) // as an apply does, which may be writing at the same time
	go func() {
		left, err := l.server.WriteBootstrapServers(servers)
		b.written <- writtenBootstrap{left, err}
	}()
}

// leftServices is the services whose bootstrap servers can't be written, and why.
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

// failedSince is a failure that lasts, or one that begins; nil when err is nil.
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

// bootstrapLines makes lines of nginx's configuration, and keeps those that it made
// last.
type bootstrapLines struct {
	marks nginx.Marks
	made  map[string]linesOf // by upstream
}

type linesOf struct {
	targets []resolver.Target
	text    string
}

// of is the bootstrap servers of an upstream; never empty.
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
