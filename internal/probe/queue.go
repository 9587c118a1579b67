package probe

import "time"

// queue is a heap of probes, sorted by the time they are due.
type queue []*probe

func (q queue) due(now time.Time) bool { return len(q) > 0 && !q[0].due.After(now) }

// The methods of heap.Interface.

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(b any) {
	b.(*probe).index = len(*q)
	*q = append(*q, b.(*probe))
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	b := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	b.index = -1
	return b
}
