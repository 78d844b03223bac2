// Package cell makes the inside of an instance: its namespaces, its mounts, its devices and console, and in them a stub
// as pid 1, which then becomes the instance's init, or, in a restore, its process tree.
//
// Outside of the instance stays its keeper: a stub that is parent of init and of every exec for as long as the instance
// lives. It writes each wait status and everything that the console prints to a file, so that nothing is lost
// while no daemon runs; a new one takes the cell over with [Attach].
//
//	slot 0  keeper: obeys batches          descriptor 3  arena
//	slot 1  keeper: writes wait statuses               4  keeper's end of the socket
//	slot 2  keeper: copies the console                 5  our end of it, for the next daemon
//	slot 3  init                                       6  wait statuses
//	slot 4… exec                                       7  console history
//	slot 8  keeper: reads userfaultfds                 8  console master, 9 slave
//	slot 9… free                                      10… what it holds for the next daemon
package cell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vps/account"
	"vps/cell/reaper"
	"vps/console"
	"vps/devfs"
	"vps/remote"
)

// Slots of the arena.
const (
	slotKeeper = iota
	slotReaper
	slotCopier
	slotInit
	slotExec
	execSlots = 4
	slotFault = slotExec + execSlots
	slotFree  = slotFault + 1
)

// Descriptors of the keeper. Those up to fdSocket are init's too.
const (
	fdArena = 3 + iota
	fdSocket
	fdOurSocket
	fdStatus
	fdHistory
	fdMaster
	fdSlave
)

// Files and directories in a cell's run directory.
const (
	StatusFile  = "status"
	HistoryFile = "console"
	rootDir     = "root"
	volumesDir  = "volumes"
)

// Defaults of [Spec].
const (
	DefaultArenaBase = 0x600000000000
	DefaultSlots     = slotFree
	DefaultSlotSize  = 256 << 10
)

// Spec says what is built.
type Spec struct {
	ID       string
	Root     string         // the root directory, on the host
	UserNS   []remote.IDMap // nil: the host's user namespace
	Hostname string
	BootID   string // what /proc/sys/kernel/random/boot_id shows; "" for a new one

	// Monotonic and Boottime are what the instance's clocks show at birth, time_namespaces(7).
	Monotonic, Boottime time.Duration

	// The arena; zero for the defaults. A restore chooses an address that is free in all of its processes.
	ArenaBase       uint64
	Slots, SlotSize int

	Group *account.Group // made by the caller, who removes it
	Run   string         // run directory, which exists; its content is the cell's

	Devices  []devfs.Node
	Mounts   []Mount
	Masks    []string // paths below /proc and /sys that are hidden
	ReadOnly []string // paths below /proc and /sys that cannot be written to
	Sysctl   []Sysctl
	Files    []File // put over files of the root
	Console  bool
}

// Mount is a volume.
type Mount struct {
	Source   string // on the host; "" for a tmpfs
	Target   string // inside
	ReadOnly bool
	Size     uint64 // of a tmpfs, bytes; 0 for the kernel's default
}

// Sysctl is a value for a file of /proc/sys.
type Sysctl struct{ Path, Value string }

// File is a file of ours that is mounted over one of the instance's.
type File struct {
	Path    string
	Content string
}

// Exit is how a process ended, and Process one that the keeper is parent of.
type (
	Exit    = reaper.Exit
	Process = reaper.Process
)

// Stub is a process of a cell.
type Stub struct {
	PID   int // on the host
	PidFD int
	Page  *remote.Page
}

func (s Stub) run(ctx context.Context, build func(b *remote.Batch)) error {
	b := s.Page.Batch()
	build(b)
	return b.Run(ctx, s.PidFD)
}

func (s Stub) kill() error {
	if err := unix.PidfdSendSignal(s.PidFD, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", s.PID, err)
	}
	return nil
}

// Cell is the inside of an instance with its keeper.
type Cell struct {
	Arena  *remote.Arena
	Keeper Stub
	Init   Stub

	// Socket is our end of a SOCK_SEQPACKET pair whose other end is descriptor SocketFD of the keeper and of each stub.
	Socket   *os.File
	SocketFD int

	Console *os.File // the console's master side, nil if there is none

	group    *account.Group
	run      string
	base     uint64
	slotSize int
	firstUID int // the host's id of the instance's root
	state    State
	statuses *reaper.Statuses
	init     *Process
	ours     bool // the keeper is our child

	use    sync.RWMutex // read by who uses what Close takes away
	closed bool
	ctx    context.Context // ends when Close begins
	stop   context.CancelFunc
	births sync.Mutex    // the keeper obeys one at a time, and the socket is one for all
	free   chan int      // exec slots
	once   sync.Once     // Destroy
	gone   chan struct{} // closed when Destroy has ended
	err    error
}

// Build makes the keeper, the namespaces and everything in them, up to a parked stub that is pid 1, root there with all
// privileges. After an error nothing is left. Besides the run directory's content nothing outlives the cell.
//
// The calling process is root of the host's user namespace, or has at least the privileges to write id maps, to mount,
// and over the control groups.
func Build(ctx context.Context, spec Spec) (c *Cell, err error) {
	c = newCell(spec)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Destroy(context.WithoutCancel(ctx)))
			c = nil
		}
	}()
	if err := c.spawn(ctx, spec); err != nil {
		return c, err
	}
	f := &furnishing{number: make(map[*os.File]int)}
	defer f.close()
	if err := c.collect(f, spec); err != nil {
		return c, err
	}
	if err := c.birth(ctx); err != nil {
		return c, err
	}
	if err := c.furnish(ctx, f, spec); err != nil {
		return c, err
	}
	if err := c.TrimHistory(); err != nil {
		return c, err
	}
	return c, c.describe()
}

func newCell(spec Spec) *Cell {
	c := &Cell{
		Keeper: Stub{PidFD: -1}, Init: Stub{PidFD: -1},
		SocketFD: fdSocket,
		group:    spec.Group,
		run:      spec.Run,
		base:     spec.ArenaBase,
		slotSize: spec.SlotSize,
		free:     make(chan int, execSlots),
		gone:     make(chan struct{}),
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	if c.base == 0 {
		c.base = DefaultArenaBase
	}
	if c.slotSize == 0 {
		c.slotSize = DefaultSlotSize
	}
	if len(spec.UserNS) > 0 {
		c.firstUID = spec.UserNS[0].Host
	}
	for i := range execSlots {
		c.free <- slotExec + i
	}
	return c
}

// FreeSlots tells which slots of the arena are for the caller's use.
func (c *Cell) FreeSlots() (first, n int) { return slotFree, c.Arena.Slots() - slotFree }

// Take duplicates a descriptor of one of the cell's stubs into our process. The caller closes it.
func (s Stub) Take(fd int) (*os.File, error) {
	n, err := unix.PidfdGetfd(s.PidFD, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("take descriptor %d of process %d: %w", fd, s.PID, err)
	}
	return os.NewFile(uintptr(n), fmt.Sprintf("process %d descriptor %d", s.PID, fd)), nil
}

// give lets a stub have duplicates of descriptors of ours, and tells their numbers there. They are sent before the stub asks, so that
// it never has to wait for us. The caller holds c.births, if the cell is in use.
func (c *Cell) give(ctx context.Context, s Stub, fds []int) ([]int, error) {
	const most = 200 // per message: SCM_MAX_FD is 253
	var all []int
	for part := range slices.Chunk(fds, most) {
		if err := unix.Sendmsg(int(c.Socket.Fd()), []byte{0}, unix.UnixRights(part...), nil, unix.MSG_NOSIGNAL); err != nil {
			return nil, fmt.Errorf("send descriptors: %w", err)
		}
		var numbers func() []int
		if err := s.run(ctx, func(b *remote.Batch) { numbers = b.ReceiveAll("receive descriptors", fdSocket, len(part)) }); err != nil {
			return nil, err
		}
		got := numbers()
		if len(got) != len(part) {
			return nil, fmt.Errorf("process %d received %d of %d descriptors", s.PID, len(got), len(part))
		}
		all = append(all, got...)
	}
	return all, nil
}

// Destroy kills all processes of the cell, waits for their end, and lets go of it. It may be called more than once.
// The control group and the run directory stay the caller's.
func (c *Cell) Destroy(ctx context.Context) error {
	c.once.Do(func() {
		c.err = c.destroy(ctx)
		close(c.gone)
	})
	<-c.gone
	return c.err
}

func (c *Cell) destroy(ctx context.Context) error {
	c.stop()
	var errs []error
	if c.Init.PidFD >= 0 {
		// It may not be in its group yet.
		errs = append(errs, c.Init.kill(), c.group.Kill(), c.group.WaitEmpty(ctx))
	}
	if c.Keeper.PidFD >= 0 {
		errs = append(errs, c.Keeper.kill(), c.reap(ctx))
	}
	errs = append(errs, Clean(c.run))
	c.Close()
	return errors.Join(errs...)
}

// reap waits for the keeper's end.
func (c *Cell) reap(ctx context.Context) error {
	if err := reaper.WaitEnd(ctx, c.Keeper.PidFD); err != nil {
		return fmt.Errorf("wait for the keeper's end: %w", err)
	}
	if c.ours {
		var status unix.WaitStatus
		for {
			_, err := unix.Wait4(c.Keeper.PID, &status, unix.WALL, nil)
			if err != unix.EINTR {
				break
			}
		}
	}
	return nil
}

// enter keeps the cell open until the caller calls leave. Error: os.ErrClosed.
func (c *Cell) enter() (leave func(), err error) {
	c.use.RLock()
	if c.closed {
		c.use.RUnlock()
		return nil, os.ErrClosed
	}
	return c.use.RUnlock, nil
}

// Close lets go of the cell, which goes on, when every Exec under way has ended; a [Fill] it ends. It may be called more than once.
func (c *Cell) Close() {
	c.stop()
	c.use.Lock()
	defer c.use.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	for _, f := range []*os.File{c.Socket, c.Console} {
		if f != nil {
			f.Close()
		}
	}
	if c.statuses != nil {
		c.statuses.Close()
	}
	for _, s := range []*Stub{&c.Keeper, &c.Init} {
		if s.PidFD >= 0 {
			unix.Close(s.PidFD)
		}
	}
	if c.Arena != nil {
		c.Arena.Close()
	}
}

// History is the path of the file with what the console printed.
func (c *Cell) History() string { return filepath.Join(c.run, HistoryFile) }

// historyKept is how much of the console's history stays, and historyLimit by how much it may grow while nobody calls
// TrimHistory.
const (
	historyKept  = 256 << 10
	historyLimit = 64 << 20
)

// TrimHistory gives back the oldest part of the console's history, and lets the keeper write on. It is to be called now and then.
func (c *Cell) TrimHistory() error {
	size, err := console.Trim(c.History(), historyKept)
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err = unix.Prlimit(c.Keeper.PID, unix.RLIMIT_FSIZE, nil, &limit); err == nil {
		limit.Cur = min(limit.Max, uint64(size)+historyLimit)
		err = unix.Prlimit(c.Keeper.PID, unix.RLIMIT_FSIZE, &limit, nil)
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("limit the size of %s: %w", c.History(), err)
	}
	return nil
}
