// Package feed passes what happens to whoever listens.
package feed

import (
	"context"
	"sync"
)

// backlog is how many things a listener may be behind before it loses the oldest.
const backlog = 1024

// Feed is ready for use as it is. Its methods may be called by several goroutines.
type Feed[T any] struct {
	mu        sync.Mutex
	listeners map[chan T]bool
	closed    bool
}

// Send passes v to all who listen now. It does not wait for them.
func (f *Feed[T]) Send(v T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.listeners {
		for sent := false; !sent; {
			select {
			case l <- v:
				sent = true
			default: // full
				select {
				case <-l:
				default:
				}
			}
		}
	}
}

// Close ends all listening.
func (f *Feed[T]) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for l := range f.listeners {
		close(l)
	}
	f.listeners = nil
}

// Listen returns what is sent from now on. The channel is closed when ctx or the feed ends. Who is slow loses the oldest.
func (f *Feed[T]) Listen(ctx context.Context) <-chan T {
	l := make(chan T, backlog)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		close(l)
		return l
	}
	if f.listeners == nil {
		f.listeners = make(map[chan T]bool)
	}
	f.listeners[l] = true
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.listeners[l] {
			delete(f.listeners, l)
			close(l)
		}
	})
	return l
}
