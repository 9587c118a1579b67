package requestlog

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
)

// fields are the names of a type's fields in JSON, in order.
func fields(t reflect.Type) (all []string) {
	for n := range t.NumField() {
		f := t.Field(n)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		of := f.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if f.Anonymous {
			all = append(all, fields(of)...)
			continue
		}
		all = append(all, name)
	}
	return all
}

// column are the first words in code of the rows of the table that follows a heading.
func column(t *testing.T, page, heading string) (all []string) {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n"+heading+"\n")
	require.True(t, ok, heading)
	rest, _, _ = strings.Cut(rest, "\n#")
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*?`[^|]*) \\|").FindAllStringSubmatch(rest, -1) {
		for _, word := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			all = append(all, word[1])
		}
	}
	return all
}

// TestThePage compares docs/logs.md with the types.
func TestThePage(t *testing.T) {
	text, err := os.ReadFile("../../docs/logs.md")
	require.NoError(t, err)
	page := string(text)

	want := fields(reflect.TypeFor[Line]())
	at := slices.Index(want, "sample_ratio") + 1
	var tries []string
	for _, field := range fields(reflect.TypeFor[Try]()) {
		tries = append(tries, "tries."+field)
	}
	assert.Equal(t, slices.Insert(want, at, tries...), column(t, page, "## A line"))

	assert.Equal(t, accesslog.Reasons(), column(t, page, "### Reasons")[1:])
	results := column(t, page, "### Results")[1:]
	for _, result := range []string{
		accesslog.ResultSuccess, accesslog.Result4xx, accesslog.Result5xx, accesslog.ResultConnect, accesslog.ResultTimeout,
		accesslog.ResultReset, accesslog.ResultCancelled, accesslog.ResultNoInstance, accesslog.ResultBusy,
	} {
		assert.Contains(t, results, result)
	}
	for code, name := range accesslog.GRPCStatusNames() {
		if accesslog.ServerError(code) {
			assert.Contains(t, page, "`"+name+"`")
		}
	}
}
