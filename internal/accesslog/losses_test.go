package accesslog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// story tells losses what happens to an nginx, second by second.
type story struct {
	losses
	now   time.Time
	set   time.Duration // how much somebody has set the clock
	run   string
	start time.Time
	ended int64 // requests of the run
}

// newStory begins with a first nginx, which lbctl has seen from its start on.
func newStory() *story {
	s := &story{now: time.Now()}
	s.since, s.settle = s.now, settleTime
	s.restart("first")
	return s
}

func (s *story) restart(run string) {
	s.now = s.now.Add(50 * time.Millisecond)
	s.run, s.start, s.ended = run, s.now, 0
	s.now = s.now.Add(50 * time.Millisecond)
}

// requests ends n requests in a second, of which so many have a line. Then nginx is asked, and the
// lines are read that are there by now.
func (s *story) requests(n, lines int64) {
	for i := range n {
		s.now = s.now.Add(time.Second / time.Duration(n+1))
		s.ended++
		if i < lines {
			s.take(s.wall())
		}
	}
	s.now = s.now.Add(time.Second / time.Duration(n+1))
	s.ask(0)
	s.judge(s.now, s.wall())
}

// ask asks nginx, which is so many requests off.
func (s *story) ask(off int64) {
	s.add(Requests{Run: s.run, Started: s.start.Add(s.set), Ended: s.ended + off}, s.now, s.wall(), time.Millisecond)
}

func (s *story) wall() int64 { return s.now.Add(s.set).UnixMilli() }

// rest lets so many quiet seconds pass.
func (s *story) rest(seconds int) {
	for range seconds {
		s.requests(0, 0)
	}
}

func TestNothingIsLostInOrdinaryOperation(t *testing.T) {
	s := newStory()
	for range 60 {
		s.requests(1000, 1000)
		assert.Zero(t, s.lost)
	}
	s.ask(1) // a request that changes its state
	for range 8 {
		s.requests(1000, 1000)
	}
	s.rest(10)
	assert.Zero(t, s.lost)
}

func TestLinesThatComeLateAreNotLost(t *testing.T) {
	s := newStory()
	s.requests(100, 0)
	late := s.now
	s.rest(4)
	for range 100 {
		s.take(late.Add(-time.Millisecond).UnixMilli())
	}
	s.rest(20)
	assert.Zero(t, s.lost)
}

func TestLinesThatDoNotComeAreLost(t *testing.T) {
	s := newStory()
	s.requests(1000, 1000)
	s.requests(1000, 400)
	s.requests(1000, 1000)
	assert.Zero(t, s.lost, "they may still come")
	s.rest(8)
	assert.Equal(t, int64(600), s.lost)
	s.requests(1000, 1000)
	s.requests(10, 0)
	s.rest(8)
	assert.Equal(t, int64(610), s.lost)
}

func TestTheLinesOfAKilledNginxAreLost(t *testing.T) {
	s := newStory()
	s.requests(1000, 1000)
	s.requests(1000, 980)
	s.restart("second") // all have been killed: the 20 lines were in the memory of the workers
	s.requests(1000, 1000)
	s.rest(8)
	assert.Equal(t, int64(20), s.lost)
	s.requests(500, 490)
	s.rest(8)
	assert.Equal(t, int64(30), s.lost)

	s.restart("third")
	for range 10 {
		s.requests(1000, 1000)
	}
	assert.Equal(t, int64(30), s.lost)
}

func TestTheNextLbctlKnowsTheRun(t *testing.T) {
	s := newStory()
	s.requests(1000, 990)
	s.rest(8)
	next := &story{now: s.now, run: s.run, start: s.start, ended: s.ended}
	next.since, next.settle = s.now, settleTime
	next.restore(s.snapshot(), s.now)
	next.requests(1000, 900) // while it was away, the file was full
	next.rest(8)
	assert.Equal(t, int64(110), next.lost)

	// And nginx was restarted while no lbctl was there.
	third := &story{now: next.now.Add(time.Minute)}
	third.settle = settleTime
	third.restore(next.snapshot(), next.now)
	third.restart("second")
	third.requests(5000, 4000)
	third.since = third.now
	third.rest(8)
	assert.Equal(t, int64(1110), third.lost)
}

func TestAnNginxWhoseBeginningNobodySaw(t *testing.T) {
	s := newStory()
	s.start, s.ended = s.start.Add(-time.Hour), 1_000_000 // an earlier lbctl had no log
	for range 40 {
		s.requests(1000, 1000)
	}
	s.rest(1)
	assert.Zero(t, s.lost)
	s.requests(1000, 500)
	s.rest(8)
	assert.InDelta(t, 500, s.lost, 300, "what may have ended between nginx's answer and its arrival does not count")
	assert.LessOrEqual(t, s.lost, int64(500))
}

func TestAClockThatIsSet(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		s := newStory()
		s.requests(1000, 1000)
		s.requests(100, 0)
		late := s.wall()
		s.set = step
		for range 100 {
			s.take(late - 1)
		}
		for range 40 {
			s.requests(1000, 1000)
		}
		s.rest(8)
		assert.Zero(t, s.lost, step)

		s.requests(1000, 500)
		s.rest(8)
		assert.InDelta(t, 500, s.lost, 300, step)
	}
}
