package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"lbctl/internal/disk"
	"lbctl/internal/kv"
)

// ErrSnapshot is the error of Open for a snapshot that can't be used. Open then also returns a
// Keeper that has no documents.
var ErrSnapshot = errors.New("the snapshot of access rules and keys can't be used")

// Limits of the snapshot and of writing it.
const (
	maxSnapshot = 1 << 28
	savePause   = 10 * time.Second // until the next try after an error
)

// Problem is a mistake in a document.
type Problem struct {
	Document string // its name: "access/networks/3f"
	Message  string
}

func (p Problem) Error() string { return fmt.Sprintf("document %q: %s", p.Document, p.Message) }

// Keeper has the last good content of each document about access. Denials and keys stay in
// force while Consul is away, over restarts too, and while a document is broken. Any goroutine
// may use it.
type Keeper struct {
	path string // of the snapshot; "": none

	changed chan struct{} // the documents have changed, for Run

	mu        sync.Mutex
	known     bool
	documents map[string]kept
	problems  []Problem
	networks  *Networks // as of compiledAt
	stale     bool      // the rules have changed since
	tooMany   bool      // there are more than MaxRules, so the former ones count
	keys      *keys
}

// kept is a document with its last good content.
type kept struct {
	index uint64 // of the newest version, also if that is broken
	value []byte // good
	rules []Rule
	key   *Key
}

// snapshot is the content of the snapshot's file.
type snapshot struct {
	// Documents has the last good values, by name.
	Documents map[string][]byte `json:"documents"`
}

// Open makes a Keeper from the snapshot at path; if path is empty it keeps none. A snapshot
// that can't be used is moved aside, and the error is then ErrSnapshot.
func Open(path string) (*Keeper, error) {
	k := &Keeper{path: path, changed: make(chan struct{}, 1), documents: map[string]kept{}, keys: newKeys(nil)}
	if path == "" {
		return k, nil
	}
	b, err := disk.ReadFile(path, maxSnapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil && !errors.Is(err, disk.ErrUnfit) {
		return nil, fmt.Errorf("read the snapshot of access rules and keys: %w; make it readable, or remove it to start without it", err)
	}
	var s snapshot
	if err == nil {
		err = kv.Decode(b, &s)
	}
	var documents []kv.Document
	for _, name := range slices.Sorted(maps.Keys(s.Documents)) {
		documents = append(documents, kv.Document{Name: name, Value: s.Documents[name]})
	}
	if err == nil {
		if k.observe(documents); len(k.problems) > 0 {
			err = errors.New(k.problems[0].Document + ": " + k.problems[0].Message)
			k.problems = nil
		}
	}
	if err != nil {
		broken, moveErr := disk.MoveAside(path)
		if moveErr != nil {
			return nil, fmt.Errorf("%w: %s: %w; %w; remove it to start without it", ErrSnapshot, path, err, moveErr)
		}
		return k, fmt.Errorf("%w: %s: %w; it is now %s", ErrSnapshot, path, err, broken)
	}
	return k, nil
}

// Observe makes the documents in Consul those that count. A broken document keeps its last
// good content, if there is any. It returns whether anything changed.
func (k *Keeper) Observe(documents []kv.Document) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := k.observe(documents)
	if changed {
		select {
		case k.changed <- struct{}{}:
		default:
		}
	}
	return changed
}

func (k *Keeper) observe(documents []kv.Document) (changed bool) {
	changed, k.known = !k.known, true
	there := make(map[string]bool, len(documents))
	var problems []Problem
	for _, d := range documents {
		there[d.Name] = true
		old, known := k.documents[d.Name]
		if known && old.index == d.Index && d.Index > 0 {
			problems = append(problems, k.problemsOf(d.Name)...)
			continue
		}
		changed = true
		now := kept{index: d.Index, value: d.Value}
		if err := now.parse(d); err != nil {
			now = old // without content, if there was none
			now.index = d.Index
			problems = append(problems, Problem{d.Name, err.Error()})
		}
		k.documents[d.Name] = now
	}
	for name := range k.documents {
		if !there[name] {
			delete(k.documents, name)
			changed = true
		}
	}
	rules := 0
	for _, d := range k.documents {
		rules += len(d.rules)
	}
	if k.tooMany = rules > MaxRules; k.tooMany {
		problems = append(problems, Problem{NetworksNames, fmt.Sprintf("there are %d rules about networks, want at most %d: the former ones stay in force", rules, MaxRules)})
	}
	k.problems = problems
	if changed {
		k.stale = true
		k.keys = newKeys(k.allKeys())
	}
	return changed
}

func (k *Keeper) problemsOf(name string) []Problem {
	return slices.DeleteFunc(slices.Clone(k.problems), func(p Problem) bool { return p.Document != name })
}

func (now *kept) parse(d kv.Document) (err error) {
	switch {
	case strings.HasPrefix(d.Name, NetworksNames):
		now.rules, err = parseRules(d.Name, d.Value)
	case strings.HasPrefix(d.Name, KeysNames):
		now.key, err = ReadKey(d)
	default:
		err = fmt.Errorf("lbctl does not know such a document, want one below %q or %q", NetworksNames, KeysNames)
	}
	return err
}

func (k *Keeper) allKeys() []*Key {
	var all []*Key
	for _, d := range k.documents {
		if d.key != nil {
			all = append(all, d.key)
		}
	}
	return all
}

// Known reports whether there is an answer of Consul, perhaps one of before a restart.
func (k *Keeper) Known() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known
}

// Networks returns the rules that count now; nil if there are none. It returns the same pointer
// until they change.
func (k *Keeper) Networks(now time.Time) *Networks {
	k.mu.Lock()
	defer k.mu.Unlock()
	if next := k.networks.Next(); k.tooMany || !k.stale && (next.IsZero() || now.Before(next)) {
		return k.networks
	}
	var rules []Rule
	for _, d := range k.documents {
		rules = append(rules, d.rules...)
	}
	k.networks, k.stale = compile(rules, now), false
	return k.networks
}

// Problems returns the mistakes in the documents.
func (k *Keeper) Problems() []Problem {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.problems)
}

// Run writes the snapshot whenever the documents have changed, until ctx is done. It calls
// saved after each attempt, with its error or nil.
func (k *Keeper) Run(ctx context.Context, saved func(error)) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.changed:
		case <-again:
		}
		err := k.save()
		saved(err)
		again = nil
		if err != nil {
			again = time.After(savePause)
		}
	}
}

func (k *Keeper) save() error {
	if k.path == "" {
		return nil
	}
	s := snapshot{Documents: map[string][]byte{}}
	k.mu.Lock()
	for name, d := range k.documents {
		if d.rules != nil || d.key != nil {
			s.Documents[name] = d.value
		}
	}
	k.mu.Unlock()
	b, err := json.Marshal(s)
	if err == nil {
		err = disk.ReplaceSecret(k.path, -1, b) // it has the hashes of passwords
	}
	if err != nil {
		return fmt.Errorf("write the snapshot of access rules and keys: %w", err)
	}
	return nil
}
