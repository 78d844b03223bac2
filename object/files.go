package object

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

// ErrBusy is the class of refusals that are likely to be gone when the instance has run a moment longer.
var ErrBusy = errors.New("busy")

// Externals are the ends of an instance's objects that lie in our own hands.
type Externals struct {
	ConsoleTTY int             // index of the pty that is the console; -1: none
	Pipes      map[uint64]bool // inode numbers of pipes between an exec session and us
}

// Descriptors dumps the tables of descriptors of an instance and what they are open on.
//
// While it works every task of the instance is stopped. It belongs to one goroutine.
type Descriptors struct {
	procs []Proc
	init  int // pid of the instance's init, here
	ext   Externals
	sink  Sink
	ids   IDMaps

	tables   []fdTable // in kcmp's order
	groups   map[fileKey][]*openFile
	files    []*openFile // by id - 1
	byNumber map[descriptor]*openFile

	objects  objectIDs // of pipes and memory
	pipes    map[uint64]*pipeDump
	sockets  map[uint64]*socketDump
	peers    map[uint64]int32 // pids inside of sockets' peers, by socket: what AskPeers found
	ttys     map[uint32]*ttyDump
	epolls   []*openFile
	inflight []int // our copies of descriptors that lie in socket queues
	self     int   // a pidfd of ours; -1: none yet
}

type fdTable struct {
	id   uint64
	host int
}

// descriptor is a number in the table of a process.
type descriptor struct{ host, fd int }

// openFile is an open file description.
type openFile struct {
	id     uint64
	at     handle
	link   string
	record *dump.File
}

// fileKey is what two descriptors of one open file description have in common, and what is cheap to compare.
type fileKey struct {
	link  string
	pos   uint64
	flags uint32
	mount int
	ino   uint64
}

// NewDescriptors prepares a dump of the descriptors of processes, which are all those of the instance that are alive.
// init is the pid of the instance's init, here.
func NewDescriptors(procs []Proc, init int, ext Externals, sink Sink) *Descriptors {
	return &Descriptors{
		procs: procs, init: init, ext: ext, sink: sink, self: -1,
		groups:   make(map[fileKey][]*openFile),
		byNumber: make(map[descriptor]*openFile),
		objects:  objectIDs{ids: make(map[inode]uint64)},
		pipes:    make(map[uint64]*pipeDump),
		sockets:  make(map[uint64]*socketDump),
		peers:    make(map[uint64]int32),
		ttys:     make(map[uint32]*ttyDump),
	}
}

// Probe finds what cannot be dumped in a process that may be running. Each error is a [*Refusal], or says why nothing can be known.
func (d *Descriptors) Probe(p Proc) []error {
	fds, err := descriptors(p.Host)
	if err != nil {
		return []error{fmt.Errorf("descriptors of pid %d: %w", p.PID, err)}
	}
	refused := probeThreads(p)
	for _, fd := range fds {
		err := d.probe(handle{&p, p.Host, p.PidFD, fd})
		// A running process may have closed it by now, or have ended.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.ESRCH) {
			refused = append(refused, err)
		}
	}
	return refused
}

// probeThreads refuses threads that do not share their process's table (CLONE_FILES of unshare(2)).
func probeThreads(p Proc) []error {
	tids, err := remote.Tasks(p.Host)
	if err != nil {
		return nil // it ends
	}
	for _, tid := range tids {
		order, err := linux.Kcmp(p.Host, tid, linux.KCMP_FILES, 0, 0)
		if err == nil && order != 0 && Alive(p.PidFD) {
			return []error{&Refusal{PID: p.PID, Comm: p.Comm, FD: -1, Object: "a thread with descriptors of its own"}}
		}
	}
	return nil
}

func (d *Descriptors) probe(h handle) error {
	link, err := os.Readlink(h.path("fd"))
	if err != nil {
		return err
	}
	info, err := h.info()
	if err != nil {
		return err
	}
	l, err := h.look(link, info)
	if err != nil {
		return err
	}
	defer l.close()
	_, err = d.kindOf(l)
	return err
}

// Dump writes the table of descriptors of a process and returns its id. Processes that share a table get the same one.
func (d *Descriptors) Dump(p Proc) (uint64, error) {
	place, err := d.findTable(p.Host)
	if err != nil {
		return 0, fmt.Errorf("descriptors of pid %d: %w", p.PID, err)
	}
	if place >= 0 {
		return d.tables[place].id, nil
	}
	fds, err := descriptors(p.Host)
	if err != nil {
		return 0, fmt.Errorf("descriptors of pid %d: %w", p.PID, err)
	}
	slices.Sort(fds)
	table := &dump.FdTable{Id: uint64(len(d.tables) + 1)}
	for _, fd := range fds {
		f, cloexec, err := d.file(handle{&p, p.Host, p.PidFD, fd})
		if err != nil {
			return 0, describe(err, p.PID, fd)
		}
		d.byNumber[descriptor{p.Host, fd}] = f
		table.Fds = append(table.Fds, &dump.Fd{Fd: uint32(fd), File: f.id, Cloexec: cloexec})
	}
	d.tables = slices.Insert(d.tables, -place-1, fdTable{table.Id, p.Host})
	return table.Id, d.sink.Put(table.Id, table)
}

func describe(err error, pid, fd int) error {
	if errors.Is(err, ErrUnsupported) {
		return err
	}
	return fmt.Errorf("pid %d fd %d: %w", pid, fd, err)
}

// findTable returns the place of a process's table, or -place-1 where it belongs.
func (d *Descriptors) findTable(host int) (int, error) {
	return search(len(d.tables), func(i int) (int, error) {
		return linux.Kcmp(d.tables[i].host, host, linux.KCMP_FILES, 0, 0)
	})
}

// search is a binary search whose comparison may fail; it returns -place-1 if nothing compares as 0.
func search(n int, compare func(int) (int, error)) (int, error) {
	low, high := 0, n
	for low < high {
		mid := (low + high) / 2
		order, err := compare(mid)
		switch {
		case err != nil:
			return 0, err
		case order == 0:
			return mid, nil
		case order < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return -low - 1, nil
}

// file returns the open file description behind a descriptor, and whether the descriptor is close-on-exec.
func (d *Descriptors) file(h handle) (*openFile, bool, error) {
	link, err := os.Readlink(h.path("fd"))
	if err != nil {
		return nil, false, err
	}
	info, err := h.info()
	if err != nil {
		return nil, false, err
	}
	cloexec := info.flags&unix.O_CLOEXEC != 0
	info.flags &^= unix.O_CLOEXEC
	key := fileKey{link, info.pos, info.flags, info.mount, info.ino}
	group := d.groups[key]
	place, err := search(len(group), func(i int) (int, error) {
		return linux.Kcmp(group[i].at.host, h.host, linux.KCMP_FILE, uint64(group[i].at.fd), uint64(h.fd))
	})
	if err != nil {
		return nil, false, fmt.Errorf("compare %s: %w", link, err)
	}
	if place >= 0 {
		return group[place], cloexec, d.addLocks(group[place], &info)
	}
	f := &openFile{id: uint64(len(d.files) + 1), at: h, link: link}
	f.record = &dump.File{Id: f.id, Flags: info.flags, Pos: info.pos}
	if err := d.describe(f, info); err != nil {
		return nil, false, err
	}
	d.groups[key] = slices.Insert(group, -place-1, f)
	d.files = append(d.files, f)
	return f, cloexec, nil
}

// describe fills in the record of an open file description.
func (d *Descriptors) describe(f *openFile, info fdinfo) error {
	l, err := f.at.look(f.link, info)
	if err != nil {
		return err
	}
	defer l.close()
	dump, err := d.kindOf(l)
	if err != nil {
		return err
	}
	if err := d.addLocks(f, &info); err != nil {
		return err
	}
	f.record.Owner = d.owner(l.fd)
	return dump(d, f, l)
}

// owner is who gets the signals of an open file, nil for nobody.
func (d *Descriptors) owner(fd int) *dump.Owner {
	who, err := linux.FcntlGetOwnerEx(fd)
	if err != nil || who.PID == 0 { // O_PATH has none
		return nil
	}
	signal, err := unix.FcntlInt(uintptr(fd), unix.F_GETSIG, 0)
	if err != nil {
		return nil
	}
	pid := d.inside(int(who.PID))
	if pid == 0 {
		return nil
	}
	return &dump.Owner{Type: who.Type, Pid: uint32(pid), Signal: int32(signal)}
}

// Finish writes everything that the tables refer to. No descriptor is kept open after it, whether it fails or not.
func (d *Descriptors) Finish(ctx context.Context) error {
	defer d.close()
	steps := []func() error{
		d.finishSockets, // first: descriptors in their queues add files
		d.finishEpolls,
		d.finishPipes,
		d.finishTtys,
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	for _, f := range d.files {
		if err := d.sink.Put(f.id, f.record); err != nil {
			return err
		}
	}
	return nil
}

func (d *Descriptors) close() {
	for _, fd := range d.inflight {
		unix.Close(fd)
	}
	d.inflight = nil
	if d.self >= 0 {
		unix.Close(d.self)
		d.self = -1
	}
}

// received returns the open file behind a descriptor that we found in a socket's queue, and which becomes ours.
func (d *Descriptors) received(fd int) (*openFile, error) {
	d.inflight = append(d.inflight, fd)
	if d.self < 0 {
		self, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return nil, fmt.Errorf("pidfd_open: %w", err)
		}
		d.self = self
	}
	f, _, err := d.file(handle{nil, os.Getpid(), d.self, fd})
	return f, err
}

// inode identifies a file of the host.
type inode struct{ dev, ino uint64 }

// objectIDs gives numbers to objects that have none of their own.
type objectIDs struct{ ids map[inode]uint64 }

// id returns the number of an inode, and whether it is new.
func (o *objectIDs) id(st *unix.Stat_t) (id uint64, isNew bool) {
	key := inode{st.Dev, st.Ino}
	if id, ok := o.ids[key]; ok {
		return id, false
	}
	id = uint64(len(o.ids) + 1)
	o.ids[key] = id
	return id, true
}

// owned translates the owner of an object to inside; who has no name there becomes root.
func (d *Descriptors) owned(st *unix.Stat_t) (uid, gid uint32, err error) {
	if d.ids.UIDs == nil {
		if d.ids, err = ReadIDMaps(d.init); err != nil {
			return 0, 0, err
		}
	}
	uid, uerr := d.ids.UID(st.Uid)
	gid, gerr := d.ids.GID(st.Gid)
	if uerr != nil || gerr != nil {
		return 0, 0, nil
	}
	return uid, gid, nil
}

// inside translates a pid from here to inside; 0: it is not of the instance, or not any more.
func (d *Descriptors) inside(host int) int {
	for _, p := range d.procs {
		if p.Host == host {
			return p.PID
		}
	}
	if s, err := ReadStatus(host); err == nil { // a thread
		pid, _, _ := s.Inside()
		return pid
	}
	for _, p := range d.procs { // a group or session whose leader has ended
		s, err := ReadStatus(p.Host)
		if err != nil {
			continue
		}
		_, group, session := s.Inside()
		switch {
		case len(s.NSpgid) > 0 && s.NSpgid[0] == host:
			return group
		case len(s.NSsid) > 0 && s.NSsid[0] == host:
			return session
		}
	}
	return 0
}

// sorted gives the values of a map by ascending key, so that two dumps of the same thing are the same.
func sorted[K cmp.Ordered, V any](m map[K]V) []V {
	values := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[k])
	}
	return values
}
