package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vps/account"
	"vps/config"
	"vps/instance/audit"
	"vps/instance/feed"
	"vps/instance/home"
	"vps/instance/idrange"
	"vps/instance/image"
	"vps/instance/lan"
)

// Host is the instances of one VPS_HOME. Its methods may be called by several goroutines.
type Host struct {
	log    *slog.Logger
	home   home.Home
	key    string // a hash of the home, part of every name that we make
	ids    idrange.File
	tree   *account.Hierarchies
	lock   *os.File
	joined bool // we are in control groups of our own
	lan    *lan.LAN
	events feed.Feed[Event]
	stop   context.CancelFunc // ends what the host does by itself
	ctx    context.Context
	tasks  sync.WaitGroup

	insight image.Insight

	mu        sync.Mutex
	instances map[string]*instance
	closed    bool
}

// Open opens the host whose home opt names, takes over what runs there, and undoes what an earlier daemon left half
// made. One process has a home at a time: else ErrLocked. ctx bounds the opening only.
func Open(ctx context.Context, opt Options) (*Host, error) {
	at, err := home.At(opt.Home)
	if err != nil {
		return nil, err
	}
	if err := at.Make(); err != nil {
		return nil, err
	}
	h := &Host{log: opt.Log, home: at, key: at.Key(), ids: idrange.Machine, insight: image.NewInsight(), instances: make(map[string]*instance)}
	if h.log == nil {
		h.log = slog.Default()
	}
	h.lan = &lan.LAN{Key: h.key, Log: h.log}
	if h.lock, err = at.Lock(); err != nil {
		return nil, err
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	if h.tree, err = account.Open(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	if opt.Daemon {
		if err := h.tree.Join(h.key); err != nil {
			return nil, errors.Join(err, h.Close())
		}
		h.joined = true
	}
	if err := h.takeOver(ctx); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	h.tasks.Go(h.trim)
	return h, nil
}

// Close lets go of the instances, which go on. It waits for operations under way.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	all := h.sorted()
	h.mu.Unlock()
	h.stop()
	for _, i := range all {
		i.detach()
	}
	h.tasks.Wait()
	h.events.Close()
	err := h.lan.Close()
	if len(all) == 0 && h.tree != nil {
		err = errors.Join(err, h.removeGroups())
	}
	return errors.Join(err, h.lock.Close())
}

// removeGroups removes the control groups of a home that has no instance.
func (h *Host) removeGroups() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var err error
	if h.joined {
		err = h.tree.Leave()
	}
	if err == nil {
		err = h.tree.RemoveHome(ctx, h.key)
	}
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// trim bounds the consoles' histories, and tends the switch.
func (h *Host) trim() {
	for tick := time.NewTicker(5 * time.Second); ; {
		select {
		case <-h.ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		h.mu.Lock()
		all := h.sorted()
		h.mu.Unlock()
		for _, i := range all {
			i.trim()
		}
		if err := h.lan.Tend(); err != nil {
			h.log.Warn("layer-3 switch", "error", err)
		}
	}
}

// sorted lists the instances by name. The caller holds h.mu.
func (h *Host) sorted() []*instance {
	all := make([]*instance, 0, len(h.instances))
	for _, i := range h.instances {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *instance) int { return strings.Compare(a.id, b.id) })
	return all
}

// get finds an instance.
func (h *Host) get(id string) (*instance, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.instances[id]; i != nil {
		return i, nil
	}
	return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
}

// claim begins an operation on an instance, which may be a new one.
func (h *Host) claim(verb, id string, states ...State) (i *instance, done func(), err error) {
	if err := config.ValidName(id); err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w: %w", verb, id, ErrInvalid, err)
	}
	for {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return nil, nil, os.ErrClosed
		}
		if i = h.instances[id]; i == nil {
			i = newInstance(h, id)
			h.instances[id] = i
		}
		h.mu.Unlock()
		if done, err = i.begin(verb, states...); err != errDropped {
			return i, done, err
		}
	}
}

// drop takes an instance out of the host. The caller holds i.mu.
func (h *Host) drop(i *instance) {
	i.dropped = true
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.instances[i.id] == i {
		delete(h.instances, i.id)
	}
}

func (h *Host) audit(ctx context.Context, verb, id string, err error) error {
	return audit.Line(ctx, h.log, verb, id, err)
}
