package access

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// differencesListed is how many differences Differences names.
const differencesListed = 4

// Differences says how rules differ from those before: "203.0.113.0/24 denied for every service by
// alice@ops-1: port scan". It is "" if they don't differ. What one command did to many networks is
// one difference, and few differences are named.
func (n *Networks) Differences(before *Networks, now time.Time) string {
	if n == before {
		return ""
	}
	var all []*difference
	by := map[kind]*difference{}
	add := func(r Rule, k kind) {
		d := by[k]
		if d == nil {
			d = &difference{kind: k, first: r.Network}
			by[k] = d
			all = append(all, d)
		}
		d.count++
	}
	changed(before, n, func(old, new *Rule) {
		if new != nil {
			add(*new, kind{service: new.Service, allow: new.Allow, by: new.By, why: new.Why})
			return
		}
		add(*old, kind{service: old.Service, allow: old.Allow, gone: true, over: old.Over(now)})
	})
	var words []string
	for k, d := range all {
		if k == differencesListed {
			words = append(words, fmt.Sprintf("and %d more about networks", len(all)-k))
			break
		}
		words = append(words, d.String())
	}
	return strings.Join(words, ", ")
}

// kind is what is told of a difference, beside the network.
type kind struct {
	service string
	allow   bool
	gone    bool // the rule no longer counts
	over    bool // because its time is over
	by, why string
}

// difference is what differs for some networks.
type difference struct {
	kind
	first netip.Prefix
	count int
}

func (d *difference) String() string {
	text := NetworkText(d.first)
	if d.count > 1 {
		text += fmt.Sprintf(" and %d more", d.count-1)
	}
	if d.gone {
		text += " no longer"
	}
	word := " denied"
	if d.allow {
		word = " allowed"
	}
	text += word
	if d.service == "" {
		text += " for every service"
	} else {
		text += " for " + d.service
	}
	if d.by != "" {
		text += " by " + d.by
	}
	switch {
	case d.over:
		text += ": its time is over"
	case d.why != "":
		text += ": " + d.why
	}
	return text
}

// changed calls visit with each rule of a network and a service that differs. old is nil for one
// that is new, new for one that is gone.
func changed(before, after *Networks, visit func(old, new *Rule)) {
	var olds, news []Rule // sorted
	if before != nil {
		olds = before.rules
	}
	if after != nil {
		news = after.rules
	}
	for len(olds) > 0 || len(news) > 0 {
		order := 0
		switch {
		case len(news) == 0:
			order = -1
		case len(olds) == 0:
			order = 1
		default:
			order = compareRules(olds[0], news[0])
		}
		switch {
		case order < 0:
			visit(&olds[0], nil)
			olds = olds[1:]
		case order > 0:
			visit(nil, &news[0])
			news = news[1:]
		default:
			if !olds[0].sameAs(news[0]) {
				visit(&olds[0], &news[0])
			}
			olds, news = olds[1:], news[1:]
		}
	}
}

// sameAs reports whether two rules for the same network and service say the same.
func (r Rule) sameAs(o Rule) bool {
	return r.Write == o.Write || r.Allow == o.Allow && r.Until.Equal(o.Until) && r.At.Equal(o.At) && r.By == o.By && r.Why == o.Why
}
