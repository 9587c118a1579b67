// Package policytest makes policies for tests.
package policytest

import "lbctl/internal/policy"

// Settings are what a service says in its metadata: pairs of field and value. It panics on a
// value that the field can't have.
func Settings(values ...string) policy.Settings {
	return policy.Resolve(Layer(policy.LevelMetadata, policy.SourceMetadata, values...))
}

// Layer is a layer with pairs of field and value. It panics on a value that the field can't have.
func Layer(level policy.Level, source string, values ...string) policy.Layer {
	l := policy.Layer{Level: level, Source: source}
	for n := 0; n < len(values); n += 2 {
		if err := l.Document.Set(values[n], values[n+1]); err != nil {
			panic(err)
		}
	}
	return l
}
