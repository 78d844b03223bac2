package instance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vps/account"
	"vps/config"
	"vps/instance/idrange"
	"vps/kmem"
	"vps/object/task"
)

// Host is the instances of one VPS_HOME. Its methods may be called by several goroutines.
type Host struct {
	log    *slog.Logger
	dirs   dirs
	key    string // a hash of the home, part of every name that we make
	ids    idrange.File
	tree   *account.Hierarchies
	lock   *os.File
	joined bool // we are in control groups of our own
	hub    hub
	stop   context.CancelFunc // ends what the host does by itself
	ctx    context.Context
	tasks  sync.WaitGroup

	restartsOnce  sync.Once
	restartReader *task.RestartReader
	restartsErr   error
	kernel        func() (*kmem.Reader, error) // opens it once

	mu        sync.Mutex
	instances map[string]*instance
	closed    bool
}

type dirs struct{ etc, state, run string }

func homeDirs(home string) (dirs, error) {
	if home == "" {
		return dirs{"/etc/vps", "/var/lib/vps", "/run/vps"}, nil
	}
	home, err := filepath.Abs(home)
	return dirs{filepath.Join(home, "etc"), filepath.Join(home, "state"), filepath.Join(home, "run")}, err
}

// Open opens the host whose home opt names, takes over what runs there, and undoes what an earlier daemon left half
// made. One process has a home at a time: else ErrLocked. ctx bounds the opening only.
func Open(ctx context.Context, opt Options) (*Host, error) {
	d, err := homeDirs(opt.Home)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{d.etc, d.state, d.run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	h := &Host{log: opt.Log, dirs: d, ids: idrange.Machine, instances: make(map[string]*instance), kernel: sync.OnceValues(kmem.Open)}
	if h.log == nil {
		h.log = slog.Default()
	}
	sum := sha256.Sum256([]byte(d.state))
	h.key = hex.EncodeToString(sum[:4])
	if h.lock, err = lockFile(filepath.Join(d.run, "lock")); err != nil {
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

// lockFile takes a file for as long as it is open.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%s: %w", path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
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
	h.hub.close()
	var err error
	if len(all) == 0 && h.tree != nil {
		err = h.removeGroups()
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

// trim bounds the consoles' histories.
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

type actorKey struct{}

// WithActor tells who asks for what is done with the context, for the audit log.
func WithActor(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, actorKey{}, who)
}

// audit writes the line that every verb leaves: who, what, result.
func (h *Host) audit(ctx context.Context, verb, id string, err error) error {
	who, _ := ctx.Value(actorKey{}).(string)
	if err != nil {
		h.log.Warn("verb", "who", who, "verb", verb, "instance", id, "result", "failed", "error", err)
	} else {
		h.log.Info("verb", "who", who, "verb", verb, "instance", id, "result", "ok")
	}
	return err
}
