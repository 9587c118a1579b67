package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRates(t *testing.T) {
	for _, c := range []struct {
		rate         Rate
		second, wait int
	}{{"1/s", 1, 1}, {"100/s", 100, 1}, {"1000000/s", 1000000, 1}, {"1/m", 1, 60}, {"3/m", 1, 20}, {"7/m", 1, 9}, {"60/m", 1, 1}, {"6000/m", 100, 1}} {
		assert.True(t, validRate(string(c.rate)), c.rate)
		assert.Equal(t, []int{c.second, c.wait}, []int{c.rate.Second(), c.rate.Wait()}, c.rate)
	}
	assert.Equal(t, "30r/m", Rate("30/m").Nginx())
	for _, text := range []string{"", "0/s", "-1/s", "01/s", "1", "1/h", "1.5/s", "1 /s", "1000001/s", "10r/s"} {
		assert.False(t, validRate(text), text)
	}
}

func TestOwner(t *testing.T) {
	s := Resolve(
		layer(t, "lb/default", `{"limit.address.rate": "1/s", "paths": {"/a": {"limit.address.rate": "2/s"}}}`),
		layer(t, SourceMetadata, `{"paths": {"/a/b": {"timeout.read": "2s"}, "=/a/b": {"limit.address.rate": "3/s"}, "/a/b/c": {"limit.address.burst": 5}}}`),
	)
	for path, want := range map[Path]Path{"": "", "/x": "", "/a": "/a", "/a/x": "/a", "/a/b": "/a", "=/a/b": "=/a/b", "/a/b/c/d": "/a"} {
		assert.Equal(t, want, s.Owner(s.At(path), "limit.address.rate"), path)
	}
	assert.Equal(t, Path("/a/b/c"), s.Owner(s.At("/a/b/c"), "limit.address.rate", "limit.address.burst"))
	assert.Equal(t, Path(""), s.Owner(s.At("/a"), "limit.service.rate"))
	assert.Equal(t, Path(""), Settings{}.Owner(Settings{}.At("/a"), "limit.service.rate"))
}
