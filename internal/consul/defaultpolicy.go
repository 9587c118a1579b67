package consul

import (
	"fmt"
	"time"

	"lbctl/internal/policy"
)

// DefaultPolicy is the operator's policy for all services.
type DefaultPolicy struct {
	Layer policy.Layer // as it counts
	Index uint64       // Consul's, of the newest version; 0: there is no document
}

// DefaultPolicy returns the operator's policy for all services.
func (f *Follower) DefaultPolicy() DefaultPolicy {
	if f.policies.prefix == "" {
		return DefaultPolicy{}
	}
	d := f.policies.documents[f.policies.defaultKey()]
	return DefaultPolicy{d.layer, d.index}
}

// ReconsiderDefaultPolicy changes which version of the operator's policy for all services counts,
// if the table has changed its mind: see endpoints.Table.DefaultPolicy.
func (f *Follower) ReconsiderDefaultPolicy() {
	if !f.policies.answered || !f.policies.reconsiderDefault(time.Now()) {
		return
	}
	f.setPolicies(func(string) bool { return true })
}

// reconsiderDefault makes the version of the document for all services count that the table
// wants. It returns true if that is another one than before.
func (p *policies) reconsiderDefault(now time.Time) (changed bool) {
	key := p.defaultKey()
	d, ok := p.documents[key]
	p.refused = nil
	if !ok || d.problem != "" {
		p.table.ForgetDefaultPolicy()
		return false
	}
	counts, refused := p.table.DefaultPolicy(now, d.index, d.newest)
	if refused != nil {
		p.refused = []Problem{{Key: key, Message: fmt.Sprintf("%s: it is refused: %s; %s", key, refused.Why, kept(refused.Kept))}}
	}
	if counts.Equal(d.layer.Document) {
		return false
	}
	d.layer.Document = counts
	p.documents[key] = d
	p.all = policy.Resolve(d.layer)
	return true
}
