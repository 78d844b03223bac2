// Package file has open file descriptions and the tables of descriptors that lead to them. Each kind of file has a file
// here, or a package of its own: a [Dumper] and a [Restorer], registered in package kinds.
//
// [Descriptors] dump them from outside, on copies taken by pidfd_getfd and in /proc; kcmp(2) tells which descriptors share
// a description. [Restore] makes all of them in the descriptor table of the maker, and [Files.Install] gives each process
// that is born with a copy of that its own.
package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/fdinfo"
	"vps/object/inode"
	"vps/object/lock"
)

// Externals are the ends of an instance's objects that lie in our own hands.
type Externals struct {
	ConsoleTTY int             // index of the pty that is the console; -1: none
	Pipes      map[uint64]bool // inode numbers of pipes between an exec session and us
}

// Descriptors dumps the tables of descriptors of an instance and what they are open on.
//
// While it works every task of the instance is stopped. It belongs to one goroutine.
type Descriptors struct {
	procs []object.Proc
	init  int // pid of the instance's init, here
	ext   Externals
	sink  object.Sink
	ids   object.IDMaps

	seen     map[int][]Link // of the processes that have been looked at, by their pids here
	tables   []fdTable      // in kcmp's order
	table    uint64         // the one that is being dumped
	groups   map[fileKey][]*OpenFile
	files    []*OpenFile // by id - 1
	byNumber map[descriptor]*OpenFile

	kinds    []Dumper // those of other packages
	finder   *inode.Finder
	objects  objectIDs // of pipes and memory
	epolls   []epoll
	inflight []int // our copies of descriptors that lie in socket queues
	self     int   // a pidfd of ours; -1: none yet
}

type fdTable struct {
	id   uint64
	host int
}

// descriptor is a number in the table of a process.
type descriptor struct{ host, fd int }

// OpenFile is an open file description.
type OpenFile struct {
	ID     uint64
	At     Handle // of one descriptor that leads there
	Link   string // text of the link in /proc
	Record *dump.File
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
// init is the pid of the instance's init, here. Kinds finish in their order: who comes upon further open files is first.
func NewDescriptors(procs []object.Proc, init int, ext Externals, sink object.Sink, kinds ...DumpKind) *Descriptors {
	d := &Descriptors{
		procs: procs, init: init, ext: ext, sink: sink, self: -1, finder: inode.NewFinder(init),
		seen:     make(map[int][]Link),
		groups:   make(map[fileKey][]*OpenFile),
		byNumber: make(map[descriptor]*OpenFile),
		objects:  objectIDs{ids: make(map[inode.Number]uint64)},
	}
	for _, kind := range kinds {
		d.kinds = append(d.kinds, kind(d))
	}
	return d
}

// Procs are the processes of the instance.
func (d *Descriptors) Procs() []object.Proc { return d.procs }

// Init is the pid of the instance's init, here.
func (d *Descriptors) Init() int { return d.init }

// Finder finds names of the instance's files.
func (d *Descriptors) Finder() *inode.Finder { return d.finder }

// Externals are the ends of objects in our own hands.
func (d *Descriptors) Externals() Externals { return d.ext }

// Sink takes the records.
func (d *Descriptors) Sink() object.Sink { return d.sink }

// Probe finds what cannot be dumped in a process that may be running. Each error is a [*object.Refusal], or says why nothing can be known.
func (d *Descriptors) Probe(p object.Proc) []error {
	fds, err := Numbers(p.Task())
	if err != nil {
		return []error{fmt.Errorf("descriptors of pid %d: %w", p.PID, err)}
	}
	infos, err := fdinfo.Open(p.Task())
	if err != nil {
		return []error{fmt.Errorf("descriptors of pid %d: %w", p.PID, err)}
	}
	defer infos.Close()
	var refused []error
	buf := make([]byte, fdinfo.Usual)
	for _, fd := range fds {
		l := Link{Handle: Handle{&p, p.Task(), p.PidFD, fd}}
		err := l.read(infos, buf)
		if err == nil {
			err = d.probe(l)
		}
		// A running process may have closed it by now, or have ended.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.ESRCH) {
			refused = append(refused, err)
		}
	}
	return refused
}

func (d *Descriptors) probe(seen Link) error {
	info, err := seen.details()
	if err != nil {
		return err
	}
	l, err := seen.look(seen.Text, info)
	if err != nil {
		return err
	}
	defer l.close()
	_, err = d.kindOf(l)
	return err
}

// Dump writes the table of descriptors of a process, or of the thread that it is shown by, and returns its id. Who shares a table
// gets the same one.
func (d *Descriptors) Dump(p object.Proc) (uint64, error) {
	place, err := d.findTable(p.Task())
	if err != nil {
		return 0, fmt.Errorf("descriptors of pid %d: %w", p.PID, err)
	}
	if place >= 0 {
		return d.tables[place].id, nil
	}
	links, err := d.links(p)
	if err != nil {
		return 0, err
	}
	table := &dump.FdTable{Id: uint64(len(d.tables) + 1)}
	d.table = table.Id
	for _, l := range links {
		f, cloexec, err := d.file(l)
		if err != nil {
			return 0, describe(err, p.PID, l.fd)
		}
		d.byNumber[descriptor{p.Task(), l.fd}] = f
		table.Fds = append(table.Fds, &dump.Fd{Fd: uint32(l.fd), File: f.ID, Cloexec: cloexec})
	}
	d.tables = slices.Insert(d.tables, -place-1, fdTable{table.Id, p.Task()})
	return table.Id, d.sink.Put(table.Id, table)
}

func describe(err error, pid, fd int) error {
	if errors.Is(err, object.ErrUnsupported) {
		return err
	}
	return fmt.Errorf("pid %d fd %d: %w", pid, fd, err)
}

// findTable returns the place of a process's table, or -place-1 where it belongs.
func (d *Descriptors) findTable(host int) (int, error) {
	return object.Search(len(d.tables), func(i int) (int, error) {
		return linux.Kcmp(d.tables[i].host, host, linux.KCMP_FILES, 0, 0)
	})
}

// file returns the open file description behind a descriptor, and whether the descriptor is close-on-exec.
func (d *Descriptors) file(l Link) (*OpenFile, bool, error) {
	h, link := l.Handle, l.Text
	info, err := l.details()
	if err != nil {
		return nil, false, err
	}
	cloexec := info.Flags&unix.O_CLOEXEC != 0
	info.Flags &^= unix.O_CLOEXEC
	key := fileKey{link, info.Pos, info.Flags, info.Mount, info.Ino}
	group := d.groups[key]
	place, err := object.Search(len(group), func(i int) (int, error) {
		return linux.Kcmp(group[i].At.host, h.host, linux.KCMP_FILE, uint64(group[i].At.fd), uint64(h.fd))
	})
	if err != nil {
		return nil, false, fmt.Errorf("compare %s: %w", link, err)
	}
	if place >= 0 {
		return group[place], cloexec, d.addLocks(group[place], &info)
	}
	f := &OpenFile{ID: uint64(len(d.files) + 1), At: h, Link: link}
	f.Record = &dump.File{Id: f.ID, Flags: info.Flags, Pos: info.Pos}
	if err := d.describe(f, info); err != nil {
		return nil, false, err
	}
	d.groups[key] = slices.Insert(group, -place-1, f)
	d.files = append(d.files, f)
	return f, cloexec, nil
}

// describe fills in the record of an open file description.
func (d *Descriptors) describe(f *OpenFile, info fdinfo.Info) error {
	l, err := f.At.look(f.Link, info)
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
	f.Record.Owner = d.owner(l.FD)
	return dump(d, f, l)
}

// addLocks notes the locks that fdinfo shows. Those of a process show at its own descriptors only; the others at every descriptor of the
// open file.
func (d *Descriptors) addLocks(f *OpenFile, info *fdinfo.Info) error {
	for _, line := range info.Lines {
		if line.Key != "lock" {
			continue
		}
		l, err := lock.Parse(line.Value, d.Inside, d.table)
		if err != nil {
			return fmt.Errorf("lock %q on %s: %w", line.Value, f.Link, err)
		}
		if !slices.ContainsFunc(f.Record.Locks, func(other *dump.Lock) bool { return proto.Equal(other, l) }) {
			f.Record.Locks = append(f.Record.Locks, l)
		}
	}
	return nil
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
	pid := d.Inside(int(who.PID))
	if pid == 0 {
		return nil
	}
	return &dump.Owner{Type: who.Type, Pid: uint32(pid), Signal: int32(signal)}
}

// Finish writes everything that the tables refer to. No descriptor is kept open after it, whether it fails or not.
func (d *Descriptors) Finish(ctx context.Context) error {
	defer d.close()
	var steps []func() error
	for _, kind := range d.kinds {
		steps = append(steps, kind.Finish)
	}
	for _, step := range append(steps, d.finishEpolls) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	for _, f := range d.files {
		if err := d.sink.Put(f.ID, f.Record); err != nil {
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

// Received returns the open file behind a descriptor that we found in a socket's queue, and which becomes ours.
func (d *Descriptors) Received(fd int) (*OpenFile, error) {
	d.inflight = append(d.inflight, fd)
	if d.self < 0 {
		self, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return nil, fmt.Errorf("pidfd_open: %w", err)
		}
		d.self = self
	}
	l := Link{Handle: Handle{nil, os.Getpid(), d.self, fd}}
	var err error
	if l.Text, err = os.Readlink(l.path("fd")); err != nil {
		return nil, err
	}
	f, _, err := d.file(l)
	if err == nil && ofProcess(f.Record) {
		return nil, &object.Refusal{FD: -1, Object: f.Link + " in a socket's queue"}
	}
	return f, err
}

// ObjectID gives a number to an object that has none of its own but that of its inode, and tells whether it is new.
func (d *Descriptors) ObjectID(st *unix.Stat_t) (id uint64, isNew bool) { return d.objects.id(st) }

// objectIDs gives numbers to objects that have none of their own.
type objectIDs struct{ ids map[inode.Number]uint64 }

// id returns the number of an inode, and whether it is new.
func (o *objectIDs) id(st *unix.Stat_t) (id uint64, isNew bool) {
	key := inode.Number{Dev: st.Dev, Ino: st.Ino}
	if id, ok := o.ids[key]; ok {
		return id, false
	}
	id = uint64(len(o.ids) + 1)
	o.ids[key] = id
	return id, true
}

// Owned translates the owner of an object to inside; who has no name there becomes root.
func (d *Descriptors) Owned(st *unix.Stat_t) (uid, gid uint32, err error) {
	if d.ids.UIDs == nil {
		if d.ids, err = object.ReadIDMaps(d.init); err != nil {
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

// Inside translates a pid from here to inside; 0: it is not of the instance, or not any more.
func (d *Descriptors) Inside(host int) int {
	for _, p := range d.procs {
		if p.Host == host {
			return p.PID
		}
	}
	if s, err := object.ReadStatus(host); err == nil { // a thread
		pid, _, _ := s.Inside()
		return pid
	}
	for _, p := range d.procs { // a group or session whose leader has ended
		s, err := object.ReadStatus(p.Host)
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
