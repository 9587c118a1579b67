package statuspage

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"lbctl/internal/traffic"
)

// A feed looks at the source again and again while somebody watches, and keeps what changed as
// frames. All who watch get the same bytes.
type feed struct {
	opts    Options
	arrived chan struct{} // signals one who watches

	mu       sync.Mutex
	watchers int
	changed  chan struct{} // closed, and replaced, with each new frame
	ended    string        // why there will be no more frames; empty if there will be
	seq      int           // number of the newest frame; 0: nobody has watched yet
	frames   []frame       // the newest frames, at most keepFrames
	snapshot []byte        // the frame for those who begin, made when somebody does; nil: not yet
	known    *known        // nil while nobody watches

	details map[string][]byte // answers of GET /v1/recent since the newest look, by service
}

// keepFrames is how many frames one who watches may lag behind before he gets a snapshot again.
const keepFrames = 8

// A frame is one event of the feed, as it is written.
type frame struct {
	seq  int
	data []byte
}

// known is what those who watch know: all that the frames so far have said.
type known struct {
	*look
	ids    map[string]int
	nextID int
	rows   map[int][]byte // JSON by id
	order  []int          // ids sorted by name
}

func newFeed(opts Options) *feed {
	return &feed{opts: opts, arrived: make(chan struct{}, 1), changed: make(chan struct{})}
}

// run makes frames while somebody watches, until ctx is done.
func (f *feed) run(ctx context.Context) {
	defer f.end("lbctl ends")
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.arrived:
		}
		f.follow(ctx)
	}
}

// follow makes frames until nobody watches.
func (f *feed) follow(ctx context.Context) {
	ticker := time.NewTicker(f.opts.Interval)
	defer ticker.Stop()
	for f.watched() {
		l := lookAt(ctx, f.opts)
		if ctx.Err() != nil {
			return
		}
		f.add(l)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// watched reports whether somebody watches. If nobody does, the feed forgets what it knows.
func (f *feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers > 0 {
		return true
	}
	f.known, f.frames, f.snapshot, f.details = nil, nil, nil, nil
	return false
}

// enter counts one who watches. leave must be called at the end. It fails if there are too many.
func (f *feed) enter() (leave func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers >= f.opts.MaxWatchers {
		return nil, false
	}
	f.watchers++
	select {
	case f.arrived <- struct{}{}:
	default:
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.watchers--
	}, true
}

// since returns the frames after number seq, and the number of the newest one. One who begins, with
// 0, or who is too far behind, gets a snapshot instead. changed is closed when there is more, and
// ended says why there won't be.
func (f *feed) since(seq int) (frames [][]byte, now int, changed <-chan struct{}, ended string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.known == nil || seq == f.seq:
		return nil, seq, f.changed, f.ended
	case seq == 0 || len(f.frames) == 0 || f.frames[0].seq > seq+1:
		if f.snapshot == nil {
			f.snapshot = event("snapshot", f.seq, f.known.all())
		}
		return [][]byte{f.snapshot}, f.seq, f.changed, f.ended
	}
	for _, frame := range f.frames {
		if frame.seq > seq {
			frames = append(frames, frame.data)
		}
	}
	return frames, f.seq, f.changed, f.ended
}

// add makes a frame of what a look found anew.
func (f *feed) add(l *look) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	if f.known == nil {
		f.known = &known{look: &look{}, ids: map[string]int{}, rows: map[int][]byte{}}
	}
	data := f.known.learn(l)
	f.frames = append(f.frames, frame{f.seq, event("update", f.seq, data)})
	if extra := len(f.frames) - keepFrames; extra > 0 {
		f.frames = slices.Delete(f.frames, 0, extra)
	}
	f.snapshot, f.details = nil, map[string][]byte{}
	f.wake()
}

// end makes all who watch leave.
func (f *feed) end(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = why
	f.wake()
}

func (f *feed) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// event writes an event of a feed. JSON has no line break in it.
func event(name string, seq int, data []byte) []byte {
	b := make([]byte, 0, len(data)+48)
	b = append(append(b, "event: "...), name...)
	b = strconv.AppendInt(append(b, "\nid: "...), int64(seq), 10)
	b = append(append(b, "\ndata: "...), data...)
	return append(b, "\n\n"...)
}

// learn takes over a look, and returns the JSON of what is new in it.
func (k *known) learn(l *look) []byte {
	o := newObject(l.now)
	o.begin("sections", '{')
	for _, name := range sectionNames {
		if !bytes.Equal(k.sections[name], l.sections[name]) {
			o.key(name).raw(l.sections[name])
		}
	}
	o.end('}')

	o.begin("rows", '[')
	present := make(map[int]bool, len(l.services))
	var added []string
	k.order = k.order[:0]
	for _, service := range l.services {
		id, old := k.ids[service.Name]
		if !old {
			k.nextID++
			id = k.nextID
			k.ids[service.Name] = id
			added = append(added, service.Name)
		}
		present[id] = true
		k.order = append(k.order, id)
		if now := encode(rowOf(id, service)); !bytes.Equal(now, k.rows[id]) {
			k.rows[id] = now
			o.item().raw(now)
		}
	}
	o.end(']')

	o.begin("gone", '[')
	for name, id := range k.ids {
		if !present[id] {
			delete(k.ids, name)
			delete(k.rows, id)
			o.item().number(id)
		}
	}
	o.end(']')

	before := k.figures
	k.look = l
	switch {
	case l.figures.End.Equal(before.End):
		k.series(o, l.figures, added)
	case l.figures.End.Equal(before.End.Add(traffic.StepDuration)):
		k.points(o, l.figures)
		k.series(o, l.figures, added)
	default: // points are missing in between, or all are gone
		o.key("reset").raw([]byte("true"))
		k.allSeries(o, l.figures)
	}
	return o.close()
}

// sectionNames are the sections in the order in which they are written.
var sectionNames = []string{"about", "status", "connections", "figures", "problems", "certificates", "events"}

// all returns the JSON of everything that is known.
func (k *known) all() []byte {
	o := newObject(k.now)
	o.begin("sections", '{')
	for _, name := range sectionNames {
		o.key(name).raw(k.sections[name])
	}
	o.end('}')
	o.begin("rows", '[')
	for _, id := range k.order {
		o.item().raw(k.rows[id])
	}
	o.end(']')
	k.allSeries(o, k.figures)
	return o.close()
}

// allSeries writes the series of all services together and of each.
func (k *known) allSeries(o *object, figures traffic.Overview) {
	if figures.End.IsZero() {
		return
	}
	o.key("total").raw(appendRecent(nil, figures.All))
	k.writeSeries(o, figures, func(string) bool { return true })
}

// series writes the series of services that are new.
func (k *known) series(o *object, figures traffic.Overview, names []string) {
	if len(names) > 0 && !figures.End.IsZero() {
		k.writeSeries(o, figures, func(name string) bool { return slices.Contains(names, name) })
	}
}

func (k *known) writeSeries(o *object, figures traffic.Overview, wanted func(string) bool) {
	o.key("end").number(int(figures.End.UnixMilli()))
	o.begin("series", '{')
	for _, recent := range figures.Services {
		if id, ok := k.ids[recent.Service]; ok && wanted(recent.Service) {
			o.key(strconv.Itoa(id))
			o.b = appendRecent(o.b, recent)
		}
	}
	o.end('}')
}

// points writes the newest point of all services together, and of each that had a request within
// the last minute: the others have an empty point.
func (k *known) points(o *object, figures traffic.Overview) {
	o.key("pointEnd").number(int(figures.End.UnixMilli()))
	o.begin("totalPoint", '[')
	o.b = appendPoint(o.b, figures.All)
	o.end(']')
	o.begin("points", '[')
	for _, recent := range figures.Services {
		if id, ok := k.ids[recent.Service]; ok && !idle(recent) {
			o.item().number(id)
			o.item()
			o.b = appendPoint(o.b, recent)
		}
	}
	o.end(']')
}

// An object is JSON that is being written.
type object struct{ b []byte }

func newObject(now time.Time) *object {
	o := &object{b: []byte("{")}
	o.key("now").number(int(now.UnixMilli()))
	return o
}

// key writes the key of a member, which needs no escapes.
func (o *object) key(name string) *object {
	o.item()
	o.b = append(append(append(o.b, '"'), name...), `":`...)
	return o
}

// item writes the comma before an item, unless it is the first.
func (o *object) item() *object {
	if last := o.b[len(o.b)-1]; last != '{' && last != '[' {
		o.b = append(o.b, ',')
	}
	return o
}

func (o *object) begin(name string, bracket byte) { o.key(name); o.b = append(o.b, bracket) }
func (o *object) end(bracket byte)                { o.b = append(o.b, bracket) }
func (o *object) raw(json []byte)                 { o.b = append(o.b, json...) }
func (o *object) number(n int)                    { o.b = strconv.AppendInt(o.b, int64(n), 10) }
func (o *object) close() []byte                   { return append(o.b, '}') }
