package instance

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"vps/account"
	"vps/cell"
	"vps/config"
	"vps/ifvps"
	"vps/instance/registry"
)

// instance is one instance. One operation at a time changes it; a supervisor waits for its end.
type instance struct {
	host *Host
	id   string

	mu      sync.Mutex
	rec     registry.Record
	cfg     *config.Config
	cell    *cell.Cell       // nil if it has no process
	group   *account.Group   // likewise
	member  *ifvps.Member    // nil if it has no interface at the switch
	space   *ifvps.Namespace // of its network, while it has interfaces of the host's
	filling *filling         // of memory that is missing yet, nil if none is
	verb    string           // the operation under way
	ending  string           // why it is being ended by an operation, which waits for over; "" if nothing ends it
	idle    *sync.Cond       // an operation has ended
	over    chan struct{}    // closed when the supervisor is through with the cell
	dead    chan struct{}    // closed when it has no process and will not get one by itself
	retry   *time.Timer      // a start by the restart policy

	dropped bool // it is not the host's any more
}

func newInstance(h *Host, id string) *instance {
	i := &instance{host: h, id: id, cfg: config.Default(id), dead: make(chan struct{})}
	close(i.dead)
	i.idle = sync.NewCond(&i.mu)
	return i
}

// StateError says that an operation does not fit an instance's state. It is an [ErrState].
type StateError struct {
	ID, Operation string
	State         State
}

func (e *StateError) Error() string {
	return fmt.Sprintf("%s %s: it is %s", e.Operation, e.ID, e.State)
}

// Is makes it an ErrState.
func (e *StateError) Is(target error) bool { return target == ErrState }

// BusyError says that an instance has another operation under way. It is an [ErrBusy].
type BusyError struct{ ID, Operation, UnderWay string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s %s: %s is under way", e.Operation, e.ID, e.UnderWay)
}

// Is makes it an ErrBusy.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// Verbs that others look for.
const (
	verbRestart = "restart"
	verbClose   = "close" // the host lets go of it
)

// errDropped says that an instance was forgotten by another operation, between being found and being claimed.
var errDropped = errors.New("forgotten")

// begin claims the instance for an operation, which fits the states given ("" is one that does not exist yet).
// The caller calls done at the end.
func (i *instance) begin(verb string, states ...State) (done func(), err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dropped {
		return nil, errDropped
	}
	if i.verb != "" {
		return nil, &BusyError{ID: i.id, Operation: verb, UnderWay: i.verb}
	}
	if !slices.Contains(states, i.rec.State) {
		if i.rec.State == "" {
			i.host.drop(i)
			return nil, fmt.Errorf("%s: %w", i.id, ErrNotFound)
		}
		return nil, &StateError{ID: i.id, Operation: verb, State: i.rec.State}
	}
	i.verb = verb
	return i.done, nil
}

func (i *instance) done() {
	i.mu.Lock()
	i.verb, i.ending = "", ""
	if i.rec.State == "" && !i.dropped {
		i.host.drop(i) // it has not come to be
	}
	i.idle.Broadcast()
	i.mu.Unlock()
}

// set changes the state, in the record and for those who watch events.
func (i *instance) set(state State, what string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.setLocked(state, what)
}

func (i *instance) setLocked(state State, what string) error {
	i.rec.Enter(state)
	err := i.save()
	e := Event{Time: time.Now(), ID: i.id, State: state, What: what}
	if state == Dead || state == Dying {
		e.ExitStatus = i.rec.Exit
	}
	i.host.events.Send(e)
	return err
}

// current returns the cell of an instance in one of the states.
func (i *instance) current(verb string, states ...State) (*cell.Cell, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.rec.State == "" {
		return nil, fmt.Errorf("%s: %w", i.id, ErrNotFound)
	}
	if i.cell == nil || !slices.Contains(states, i.rec.State) {
		return nil, &StateError{ID: i.id, Operation: verb, State: i.rec.State}
	}
	return i.cell, nil
}

// alive tells that the instance has, or will have by itself, processes. The caller holds i.mu.
func (i *instance) alive() {
	select {
	case <-i.dead:
		i.dead = make(chan struct{})
	default:
	}
}

// ended is the opposite. The caller holds i.mu.
func (i *instance) ended() {
	select {
	case <-i.dead:
	default:
		close(i.dead)
	}
}

func (i *instance) trim() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cell != nil && i.rec.State == Running {
		if err := i.cell.TrimHistory(); err != nil {
			i.host.log.Warn("console history", "instance", i.id, "error", err)
		}
	}
}

// detach lets go of the instance's cell, which goes on, once no operation is under way.
func (i *instance) detach() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.verb != "" {
		i.idle.Wait()
	}
	i.verb = verbClose
	i.idle.Broadcast()
	if i.retry != nil {
		i.retry.Stop()
	}
	if i.cell != nil {
		i.cell.Close()
	}
}
