// Package lazy gives restored processes their memory while they run: what they touch at once, by userfaultfd(2), the rest
// as fast as it goes.
//
// Nothing must be lost when the daemon dies, for a page that is missing when the last userfaultfd of a memory is closed is zero from
// then on. So the keeper of the instance, which outlives daemons, has every userfaultfd open, and the snapshot's file. And it
// is the keeper that reads what the kernel has to tell, into a log: a system call that changes an address space goes on as soon as
// somebody has read of it, and the child of a fork has its userfaultfd where its parent's was read. A new daemon reads the log,
// and knows what the old one knew.
//
//	fault   the frame of the page is read, checked and put into all memories that it belongs to, the page itself first; what is in
//	        no frame is zero
//	fork    the child's memory is filled like its parent's
//	remap, remove, unmap
//	        what was to come to these addresses comes elsewhere, or not at all
//
// Between the keeper's reading and our knowing no page is put anywhere ([Filler]'s lock), and none while the kernel waits for a
// reader (EAGAIN); so no page comes to where it has no business any more.
//
// A page that cannot be read is poisoned: who touches it gets SIGBUS.
package lazy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

// Keeper is the stub that holds what must outlive us.
type Keeper struct {
	Page  *remote.Page // of a thread of it that obeys us alone
	PidFD int
	Log   int // its descriptor of the log
}

// run lets the keeper obey a batch, whoever waits no more: else it would obey while somebody else takes the slot.
func (k Keeper) run(b *remote.Batch) error {
	if err := b.Run(context.Background(), k.PidFD); err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	return nil
}

// Memory is a memory that waits for pages.
type Memory struct {
	Fault   int           // its userfaultfd with [Features], with which all of that is registered; a number in the keeper
	Extents []dump.Extent // ascending, each in one mapping
}

// Filler fills the memories of an instance.
type Filler struct {
	snapshot *dump.Snapshot
	keeper   Keeper
	log      *os.File
	warn     func(error)
	poll     int // epoll
	bell     int // eventfd: ends the waiting

	// mu is held for reading by who puts a page where memories say, and for writing from when the keeper reads of changes until memories
	// tell of them.
	mu       sync.RWMutex
	read     int64 // of the log
	memories map[int]*memory
	needs    map[int]map[*memory]bool // frames, and who has not got them yet
	bytes    map[int]uint64           // that a frame had for memories at first
	total    uint64
	complete chan struct{}

	again  []fault // that cannot be served before the kernel has told something
	forked []int   // frames that children need

	queue queue
}

// fault is somebody who waits for a page.
type fault struct {
	memory  *memory
	address uint64
}

// Features are those of userfaultfd(2) that a lazily filled memory needs; UFFD_FEATURE_POISON where the kernel has it.
const Features = linux.UFFD_FEATURE_EVENT_FORK | linux.UFFD_FEATURE_EVENT_REMAP | linux.UFFD_FEATURE_EVENT_REMOVE |
	linux.UFFD_FEATURE_EVENT_UNMAP | linux.UFFD_FEATURE_POISON

// Open begins to fill what the log tells of, whose writer is the keeper. log is open for reading and appending; it becomes the
// Filler's. warn is told of pages that cannot be read.
func Open(s *dump.Snapshot, log *os.File, keeper Keeper, warn func(error)) (*Filler, error) {
	f := &Filler{
		snapshot: s, keeper: keeper, log: log, warn: warn, poll: -1, bell: -1,
		memories: make(map[int]*memory), needs: make(map[int]map[*memory]bool), bytes: make(map[int]uint64),
		complete: make(chan struct{}),
	}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *Filler) open() error {
	var err error
	if f.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create: %w", err)
	}
	if f.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if err := unix.EpollCtl(f.poll, unix.EPOLL_CTL_ADD, f.bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	// An earlier daemon's last order to the keeper is carried out all the same.
	if err := f.keeper.Page.Settle(context.Background(), f.keeper.PidFD); err != nil {
		return fmt.Errorf("the keeper's last batch: %w", err)
	}
	faults, err := f.readLog()
	if err != nil {
		return err
	}
	if err := f.meet(); err != nil {
		return err
	}
	f.queue.init()
	f.again = faults
	for _, size := range f.bytes {
		f.total += size
	}
	f.queue.add(f.frames())
	f.checkComplete()
	return nil
}

// frames lists those that somebody needs.
func (f *Filler) frames() []int {
	var list []int
	for number := range f.needs {
		list = append(list, number)
	}
	slices.Sort(list)
	return list
}

// meet takes the userfaultfds of memories that are new.
func (f *Filler) meet() error {
	for number, m := range f.memories {
		if m.fault >= 0 {
			continue
		}
		var err error
		if m.fault, err = unix.PidfdGetfd(f.keeper.PidFD, number, 0); err != nil {
			return fmt.Errorf("take userfaultfd %d of the keeper: %w", number, err)
		}
		if err := unix.EpollCtl(f.poll, unix.EPOLL_CTL_ADD, m.fault, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)}); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return nil
}

// Run fills until every memory has all of its pages; nil says that. It ends early, and may not be called again, when ctx does, or when
// pages can neither be given nor poisoned: then the instance must not go on.
func (f *Filler) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		f.queue.close()
		// Fails only if the counter is full: then it rings already.
		_, _ = unix.Write(f.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer stop()
	g.Go(func() error { return f.listen(ctx) })
	for _, urgentOnly := range []bool{true, false} {
		g.Go(func() error { return f.work(ctx, urgentOnly) })
	}
	g.Go(func() error {
		select {
		case <-f.complete:
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	err := g.Wait()
	select {
	case <-f.complete:
		err = nil
	default:
		err = cmp.Or(err, context.Cause(ctx))
	}
	return errors.Join(err, f.close())
}

// Progress tells how many bytes are missing yet, and how many were in the beginning.
func (f *Filler) Progress() (missing, total uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for frame := range f.needs {
		missing += f.bytes[frame]
	}
	return missing, f.total
}

// checkComplete looks whether anything is missing yet. The caller holds mu.
func (f *Filler) checkComplete() {
	if len(f.needs) > 0 {
		return
	}
	select {
	case <-f.complete:
	default:
		close(f.complete)
	}
}

// drop forgets a memory: its process is gone. The caller holds mu.
func (f *Filler) drop(number int) {
	m := f.memories[number]
	if m == nil {
		return
	}
	delete(f.memories, number)
	for frame, who := range f.needs {
		if delete(who, m); len(who) == 0 {
			delete(f.needs, frame)
		}
	}
	if m.fault >= 0 {
		// The keeper has it open too, so that it would go on to ring.
		_ = unix.EpollCtl(f.poll, unix.EPOLL_CTL_DEL, m.fault, nil)
		unix.Close(m.fault)
	}
	m.gone = true
}

func (f *Filler) close() error {
	for number := range f.memories {
		f.drop(number)
	}
	for _, fd := range []int{f.poll, f.bell} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return f.log.Close()
}
