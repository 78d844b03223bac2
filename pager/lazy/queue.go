package lazy

import "sync"

// queue hands out frames: those that somebody waits for first, then the others in the order of the file. A frame is handed out to one at
// a time.
type queue struct {
	mu     sync.Mutex
	news   *sync.Cond
	urgent []request
	rest   []int
	busy   map[int]bool
	closed bool
}

// request is a frame, with the fault for which it is read, if there is one.
type request struct {
	frame int
	fault fault
}

func (q *queue) init() {
	q.news = sync.NewCond(&q.mu)
	q.busy = make(map[int]bool)
}

// add adds frames that somebody needs some day.
func (q *queue) add(frames []int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rest = append(q.rest, frames...)
	q.news.Broadcast()
}

// hurry asks for a frame now.
func (q *queue) hurry(r request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.urgent = append(q.urgent, r)
	q.news.Broadcast()
}

// take waits for a frame; false when the queue is closed.
func (q *queue) take(urgentOnly bool) (request, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for ; !q.closed; q.news.Wait() {
		for i, r := range q.urgent {
			if !q.busy[r.frame] {
				q.urgent = append(q.urgent[:i], q.urgent[i+1:]...)
				q.busy[r.frame] = true
				return r, true
			}
		}
		for i, frame := range q.rest {
			if !urgentOnly && !q.busy[frame] {
				q.rest = append(q.rest[:i], q.rest[i+1:]...)
				q.busy[frame] = true
				return request{frame: frame}, true
			}
		}
	}
	return request{}, false
}

// done gives a frame back.
func (q *queue) done(frame int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.busy, frame)
	q.news.Broadcast()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.news.Broadcast()
}
