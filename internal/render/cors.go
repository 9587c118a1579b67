package render

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"lbctl/internal/policy"
)

// CORSHeaders are the headers that nginx sets where a policy has cors, instead of the instances.
var CORSHeaders = []string{
	"Access-Control-Allow-Credentials", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
	"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Access-Control-Max-Age",
}

// Origins are the origins that some locations allow.
type Origins struct {
	// ID stands for the origins in nginx: Location.CORS of these locations. With "+" at its end,
	// credentials are allowed too.
	ID   string
	List []string
}

// CORS returns the ID of the location's allowed origins: "*" for all, "" without cors.
func (l Location) CORS() string {
	c := l.Policy.CORS
	switch {
	case len(c.AllowOrigins) == 0:
		return ""
	case c.AnyOriginAllowed():
		return policy.AnyOrigin
	}
	// Services with the same origins share them.
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(c.AllowOrigins)), " ")))
	id := hex.EncodeToString(sum[:6])
	if c.Credentials() {
		id += "+"
	}
	return id
}

// CORSHeaders returns the headers that nginx sets instead of the instances.
func (l Location) CORSHeaders() []string { return CORSHeaders }

// CORS returns the origins that locations allow, sorted by ID.
func (f Frontend) CORS() []Origins {
	byID := map[string][]string{}
	f.each(func(l Location) {
		if id := l.CORS(); id != "" {
			byID[id] = l.Policy.CORS.AllowOrigins
		}
	})
	var all []Origins
	for id, list := range byID {
		all = append(all, Origins{id, list})
	}
	slices.SortFunc(all, func(a, b Origins) int { return strings.Compare(a.ID, b.ID) })
	return all
}
