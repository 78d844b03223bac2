package instance

import (
	"context"
	"sync"
)

// eventBacklog is how many events a reader may be behind before it loses the oldest.
const eventBacklog = 1024

// hub passes events to whoever listens.
type hub struct {
	mu        sync.Mutex
	listeners map[chan Event]bool
	closed    bool
}

func (h *hub) send(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		for sent := false; !sent; {
			select {
			case l <- e:
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

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for l := range h.listeners {
		close(l)
	}
	h.listeners = nil
}

// Events returns what happens from now on. The channel is closed when ctx or the host ends. A reader that is slow
// loses the oldest events.
func (h *Host) Events(ctx context.Context) <-chan Event {
	l := make(chan Event, eventBacklog)
	h.hub.mu.Lock()
	defer h.hub.mu.Unlock()
	if h.hub.closed {
		close(l)
		return l
	}
	if h.hub.listeners == nil {
		h.hub.listeners = make(map[chan Event]bool)
	}
	h.hub.listeners[l] = true
	context.AfterFunc(ctx, func() {
		h.hub.mu.Lock()
		defer h.hub.mu.Unlock()
		if h.hub.listeners[l] {
			delete(h.hub.listeners, l)
			close(l)
		}
	})
	return l
}
