package nginx

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestRetirements(t *testing.T) {
	var r retirements
	began := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return began.Add(time.Duration(minutes) * time.Minute) }
	since := func(now time.Time, processes ...Process) (minutes []int) {
		r.fill(processes, now)
		for _, p := range processes {
			minutes = append(minutes, int(p.Retired.Sub(began)/time.Minute))
		}
		return minutes
	}
	a, b := Process{PID: 4, Started: began}, Process{PID: 5, Started: began}

	assert.Equal(t, []int{1}, since(at(1), a), "an older worker counts from its first sight")
	r.add([]int{5}, at(2))
	assert.Equal(t, []int{1, 2}, since(at(9), a, b), "others count from the change of generation")
	assert.Equal(t, []int{2}, since(at(10), b))
	assert.Equal(t, []int{11, 2}, since(at(11), a, b), "ended workers are forgotten")
	b.Started = at(12)
	assert.Equal(t, []int{13}, since(at(13), b), "another process with the same id")
}

func TestPrivateMemory(t *testing.T) {
	ballast := make([]byte, 8<<20)
	for n := range ballast {
		ballast[n] = 1
	}
	assert.GreaterOrEqual(t, privateMemory(os.Getpid()), int64(len(ballast)))
	assert.Zero(t, privateMemory(1<<30), "no such process")
	_ = ballast[0]

	tests := []struct {
		name, text string
		want       int64
		ok         bool
	}{
		{"clean and dirty pages are added", "00400000-7ff rollup\nRss: 9000 kB\nPrivate_Clean:    100 kB\nPrivate_Dirty:   20 kB\nPrivate_Hugetlb: 7 kB\n", 120 << 10, true},
		{"an invalid number", "Private_Dirty: x kB\n", 0, false},
		{"an empty file", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := rollup(tt.text, "Private_Clean:", "Private_Dirty:")
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.ok, ok)
		})
	}
}
