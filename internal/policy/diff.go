package policy

import (
	"cmp"
	"slices"
)

// Difference is a field that two documents set differently.
type Difference struct {
	Path   Path   `json:"path,omitempty"` // empty: the whole service
	Field  string `json:"field"`
	Before string `json:"before,omitempty"` // empty: not set
	After  string `json:"after,omitempty"`  // empty: not set
}

// Diff returns what is different between two documents, in the order of Values.
func Diff(before, after Document) []Difference {
	var all []Difference
	for _, v := range before.Values() {
		if text := after.text(v.Path, v.Field.Name); text != v.Text {
			all = append(all, Difference{v.Path, v.Field.Name, v.Text, text})
		}
	}
	for _, v := range after.Values() {
		if before.text(v.Path, v.Field.Name) == "" {
			all = append(all, Difference{Path: v.Path, Field: v.Field.Name, After: v.Text})
		}
	}
	slices.SortStableFunc(all, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(slices.Index(names, a.Field), slices.Index(names, b.Field)))
	})
	return all
}
