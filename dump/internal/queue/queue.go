// Package queue does work in the order in which it is given, beside those who give it.
package queue

import (
	"sync"
	"sync/atomic"
)

// Queue is a queue of jobs, which never makes anyone wait. The first job that fails is the last one that is done: every
// later call returns its error. Its methods may be called from several goroutines.
type Queue struct {
	ended    error // what is returned after End
	finished chan struct{}

	mu     sync.Mutex // guards jobs and closed
	more   sync.Cond  // they have changed
	jobs   []Job
	closed bool

	failure atomic.Pointer[error]
}

// Job is done in its turn, and once Ready is closed.
type Job struct {
	Ready <-chan struct{} // nil: at once
	Do    func() error
	After func() // nil or called in the end, whether the job was done or not
}

// New begins a queue. [Queue.End] ends it; whoever comes later is told by the error ended.
func New(ended error) *Queue {
	q := &Queue{ended: ended, finished: make(chan struct{})}
	q.more.L = &q.mu
	go q.run()
	return q
}

// run does the jobs. After a failure it only takes them off the queue, so that nobody waits in vain.
func (q *Queue) run() {
	defer close(q.finished)
	for jobs := q.next(); len(jobs) > 0; jobs = q.next() {
		for _, j := range jobs {
			if j.Ready != nil {
				<-j.Ready
			}
			if q.Err() == nil {
				if err := j.Do(); err != nil {
					q.Fail(err)
				}
			}
			if j.After != nil {
				j.After()
			}
		}
	}
}

// next takes what is in the queue; nothing at its end.
func (q *Queue) next() []Job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.jobs) == 0 && !q.closed {
		q.more.Wait()
	}
	jobs := q.jobs
	q.jobs = nil
	return jobs
}

// Err returns the first failure.
func (q *Queue) Err() error {
	if err := q.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Fail makes err the first failure, if there was none.
func (q *Queue) Fail(err error) { q.failure.CompareAndSwap(nil, &err) }

// Submit appends a job. If it returns an error, the job is neither done nor is its After called.
func (q *Queue) Submit(j Job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.Err(); err != nil {
		return err
	}
	if q.closed {
		return q.ended
	}
	q.jobs = append(q.jobs, j)
	q.more.Signal()
	return nil
}

// End ends the queue after a last job, and waits until that is done.
func (q *Queue) End(last Job) error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return q.ended
	}
	q.closed = true
	q.jobs = append(q.jobs, last)
	q.more.Signal()
	q.mu.Unlock()
	<-q.finished
	return q.Err()
}
