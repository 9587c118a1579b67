package endpoints

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"lbctl/internal/disk"
)

// ErrSnapshot is the error of Open for a snapshot that can't be used. The
// table that comes with it starts empty and works.
var ErrSnapshot = errors.New("endpoint snapshot is unusable")

// snapshotVersion goes up when an older lbctl could misread the file.
const snapshotVersion = 1

// snapshot is the file's content: what a Table remembers.
type snapshot struct {
	snapshotDates
	Version  int               `json:"version"`
	Filtered bool              `json:"filtered,omitempty"`
	Owners   map[claim]string  `json:"owners,omitempty"`
	Services []snapshotService `json:"services"`
}

// snapshotDates are the times that alone are no reason to write a snapshot.
type snapshotDates struct {
	Observed  time.Time `json:"observed,omitzero"`  // the last change, not the last observation
	Confirmed time.Time `json:"confirmed,omitzero"` // when Consul last stood by all services that have no date of their own
}

type snapshotService struct {
	Name       string `json:"name"`
	Understood bool   `json:"understood"`
	Spec
	Peak      int            `json:"peak,omitempty"`
	Instances []Instance     `json:"instances,omitempty"`
	Held      []snapshotHold `json:"held,omitempty"`
	State     State          `json:"state"`
	Since     time.Time      `json:"since"`
	// Confirmed is when Consul last stood by it, where that is not when it last
	// stood by the others.
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Took is whether nginx took the service as it is above. If not, Last is what
	// it took last.
	Took bool           `json:"took,omitempty"`
	Last *snapshotBlock `json:"last,omitempty"`
}

type snapshotBlock struct {
	Spec
	Instances []Instance `json:"instances,omitempty"`
}

type snapshotHold struct {
	Instance Instance  `json:"instance"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
}

// Open makes a table that remembers what the snapshot at path says; without
// one it starts empty. With an empty path it keeps no snapshot.
//
// A snapshot that can't be understood is moved aside, to path.broken: Open
// then returns an empty table together with an error that is ErrSnapshot. With
// any other error there is no table.
func Open(path string, opts Options) (*Table, error) {
	t := newTable(path, opts)
	if path == "" {
		return t, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read endpoint snapshot: %w", err)
	}
	s, err := parseSnapshot(b)
	if err != nil {
		broken := path + ".broken"
		if err := os.Rename(path, broken); err != nil {
			return nil, fmt.Errorf("move the broken endpoint snapshot aside: %w", err)
		}
		return t, fmt.Errorf("%w: %s: %w; starting without it, it is now %s", ErrSnapshot, path, err, broken)
	}
	t.restore(s)
	return t, nil
}

// Save writes the snapshot, if it would differ from the last one, or that is older
// than SaveInterval. It is atomic: after a crash the file is the old one or the
// new one.
func (t *Table) Save() error {
	if t.path == "" {
		return nil
	}
	t.saveMu.Lock()
	defer t.saveMu.Unlock()
	s := t.snapshot()
	dates, err := json.Marshal(s.snapshotDates)
	if err != nil {
		return fmt.Errorf("save endpoint snapshot: %w", err)
	}
	s.snapshotDates = snapshotDates{}
	content, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("save endpoint snapshot: %w", err)
	}
	sum := sha256.Sum256(content)
	recent := t.opts.MaxStale <= 0 || time.Since(t.stored) < t.SaveInterval()
	if sum == t.saved && recent {
		return nil
	}
	// Both are JSON objects, and the second is never empty: thus they are one, and
	// what is long with thousands of instances is made once.
	dates = dates[:len(dates)-1]
	if len(dates) > 1 {
		dates = append(dates, ',')
	}
	if err := disk.Replace(t.path, dates, content[1:], []byte("\n")); err != nil {
		return fmt.Errorf("save endpoint snapshot: %w", err)
	}
	t.saved, t.stored = sum, time.Now()
	return nil
}

func (t *Table) snapshot() snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.confirm(now)
	s := snapshot{
		snapshotDates: snapshotDates{Observed: t.seen, Confirmed: now},
		Version:       snapshotVersion,
		Filtered:      t.trust.Filtered,
		Owners:        maps.Clone(t.owners),
		Services:      make([]snapshotService, 0, len(t.records)),
	}
	for _, name := range t.names() {
		r := t.records[name]
		ss := snapshotService{
			Name:      name,
			Instances: r.instances,
			Peak:      r.peak,
			State:     r.state,
			Since:     r.since,
		}
		if r.confirmed != now {
			ss.Confirmed = cmp.Or(r.confirmed, t.seen)
		}
		if r.good != nil {
			ss.Understood, ss.Spec = true, *r.good
		}
		for _, h := range r.held {
			ss.Held = append(ss.Held, snapshotHold{h.instance, h.reason, h.since})
		}
		if took := r.took; took != nil && equal(*took, r.says(name)) {
			ss.Took = true
		} else if took != nil && took.Protocol != "" {
			ss.Last = &snapshotBlock{took.Spec, took.Instances}
		}
		slices.SortFunc(ss.Held, func(a, b snapshotHold) int { return compareInstances(a.Instance, b.Instance) })
		s.Services = append(s.Services, ss)
	}
	return s
}

// parseSnapshot is strict: what it lets through goes into nginx's
// configuration without Consul's word for it.
func parseSnapshot(b []byte) (snapshot, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return snapshot{}, err
	}
	if head.Version != snapshotVersion {
		return snapshot{}, fmt.Errorf("version %d, want %d", head.Version, snapshotVersion)
	}
	var s snapshot
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return snapshot{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return snapshot{}, errors.New("there is more after the JSON object")
	}
	var errs []error
	for _, ss := range s.Services {
		errs = append(errs, ss.validate())
	}
	return s, errors.Join(errs...)
}

func (ss snapshotService) validate() error {
	var errs []error
	if ss.Name == "" {
		errs = append(errs, errors.New("a service without a name"))
	}
	if ss.Understood && !slices.Contains(Protocols, ss.Protocol) {
		errs = append(errs, fmt.Errorf("service %q: protocol %q unknown, want one of %q", ss.Name, ss.Protocol, Protocols))
	}
	if !ss.Check.Valid() {
		errs = append(errs, fmt.Errorf("service %q: check %q unknown", ss.Name, ss.Check))
	}
	for _, i := range ss.Instances {
		if err := i.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("service %q: %w", ss.Name, err))
		}
	}
	for _, h := range ss.Held {
		if err := h.Instance.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("service %q: %w", ss.Name, err))
		}
	}
	if last := ss.Last; last != nil {
		if !slices.Contains(Protocols, last.Protocol) {
			errs = append(errs, fmt.Errorf("service %q: last protocol %q unknown, want one of %q", ss.Name, last.Protocol, Protocols))
		}
		for _, i := range last.Instances {
			if err := i.Validate(); err != nil {
				errs = append(errs, fmt.Errorf("service %q: last %w", ss.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// restore fills an empty table.
func (t *Table) restore(s snapshot) {
	t.seen = s.Observed
	t.trust.Filtered = s.Filtered // until somebody has looked: else the first observation would be believed
	if s.Owners != nil {
		t.owners = s.Owners
	}
	for _, ss := range s.Services {
		r := &record{instances: ss.Instances, serving: Service{Instances: ss.Instances}.InRotation(), held: map[id]*hold{}, peak: ss.Peak, state: ss.State, since: ss.Since, confirmed: ss.Confirmed}
		if r.confirmed.IsZero() {
			r.confirmed = cmp.Or(s.Confirmed, s.Observed) // older versions don't have the first
		}
		if ss.Understood {
			good := ss.Spec
			r.good = &good
		}
		for _, h := range ss.Held {
			r.held[h.Instance.key()] = &hold{instance: h.Instance, reason: h.Reason, since: h.Since}
		}
		if last := ss.Last; last != nil {
			r.took = &Service{Name: ss.Name, Spec: last.Spec, Instances: last.Instances}
		} else if ss.Took {
			took := r.says(ss.Name)
			r.took = &took
		}
		t.records[ss.Name] = r
	}
	t.entries = t.compose(t.seen, nil)
}
