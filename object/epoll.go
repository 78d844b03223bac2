package object

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/remote"
)

func (d *Descriptors) dumpEpoll(f *openFile, l *look) error {
	e := &dump.Epoll{}
	for _, line := range l.info.lines {
		if line.key != "tfd" {
			continue
		}
		item := &dump.EpollItem{}
		if _, err := fmt.Sscanf(line.value, "%d events: %x data: %x", &item.Fd, &item.Events, &item.Data); err != nil {
			return fmt.Errorf("fdinfo of epoll: line %q: %w", line.value, err)
		}
		e.Items = append(e.Items, item)
	}
	f.record.Kind = &dump.File_Epoll{Epoll: e}
	d.epolls = append(d.epolls, f)
	return nil
}

// finishEpolls finds out which open file descriptions the epoll instances watch.
func (d *Descriptors) finishEpolls() error {
	for _, f := range d.epolls {
		nth := make(map[uint32]uint32) // several files may be watched under one number
		for _, item := range f.record.GetEpoll().GetItems() {
			slot := linux.KcmpEpollSlot{Efd: uint32(f.at.fd), Tfd: item.Fd, Toff: nth[item.Fd]}
			nth[item.Fd]++
			watched, err := d.watched(f, slot)
			if err != nil {
				return err
			}
			item.File = watched.id
		}
	}
	return nil
}

func (d *Descriptors) watched(f *openFile, slot linux.KcmpEpollSlot) (*openFile, error) {
	same := func(g *openFile) (bool, error) {
		order, err := linux.KcmpEpoll(g.at.host, f.at.host, g.at.fd, slot)
		if err != nil {
			return false, fmt.Errorf("compare %s with what epoll watches as %d: %w", g.link, slot.Tfd, err)
		}
		return order == 0, nil
	}
	// Nearly always the number still means the same file.
	if g := d.byNumber[descriptor{f.at.host, int(slot.Tfd)}]; g != nil {
		if ok, err := same(g); ok || err != nil {
			return g, err
		}
	}
	for _, g := range d.files {
		if ok, err := same(g); ok || err != nil {
			return g, err
		}
	}
	return nil, f.at.refusal(fmt.Sprintf("epoll watching %d", slot.Tfd), "no descriptor leads to that file")
}

func (r *Files) restoreEpoll(s *remote.Script, file *dump.File) {
	b := s.Room(1024)
	b.Call("epoll_create1", unix.SYS_EPOLL_CREATE1, 0)
	r.settle(b, r.fds[file.GetId()])
}

// watch is something that an epoll instance is to watch again.
type watch struct {
	epoll uint64 // File records
	item  *dump.EpollItem
}

// planWatches decides which table an epoll instance is filled in. The number under which a file is added is part of
// what epoll knows it by: the best table is that in which most numbers still mean what they meant.
func (r *Files) planWatches() error {
	best := make(map[uint64]uint64) // epoll's File record to table
	hits := make(map[uint64]int)
	for _, id := range sortedIDs(r.set.FdTables) {
		numbers := make(map[uint32]uint64)
		for _, fd := range r.set.FdTables[id].GetFds() {
			numbers[fd.GetFd()] = fd.GetFile()
		}
		seen := make(map[uint64]bool)
		for _, fd := range r.set.FdTables[id].GetFds() {
			epoll := r.set.Files[fd.GetFile()].GetEpoll()
			if epoll == nil || seen[fd.GetFile()] {
				continue
			}
			seen[fd.GetFile()] = true
			n := 0
			for _, item := range epoll.GetItems() {
				if numbers[item.GetFd()] == item.GetFile() {
					n++
				}
			}
			if best[fd.GetFile()] == 0 || n > hits[fd.GetFile()] {
				best[fd.GetFile()], hits[fd.GetFile()] = id, n
			}
		}
	}
	for _, id := range sortedIDs(r.set.Files) {
		items := r.set.Files[id].GetEpoll().GetItems()
		if len(items) > 0 && best[id] == 0 {
			return fmt.Errorf("file %d: an epoll instance that is in no table: %w", id, ErrUnsupported)
		}
		for _, item := range items {
			if _, ok := r.fds[item.GetFile()]; !ok {
				return fmt.Errorf("file %d: epoll watches file %d, which is not there", id, item.GetFile())
			}
			r.watches[best[id]] = append(r.watches[best[id]], watch{id, item})
		}
	}
	return nil
}

// watchAgain fills epoll instances in a process that has its own descriptors already, and still has the maker's.
func (r *Files) watchAgain(s *remote.Script, table *dump.FdTable) error {
	watches := r.watches[table.GetId()]
	for _, w := range watches { // first: nothing else is to be reported meanwhile
		if disarmed(w.item.GetEvents()) {
			if err := r.watchDisarmed(s, table, w); err != nil {
				return err
			}
		}
	}
	for _, w := range watches {
		if !disarmed(w.item.GetEvents()) {
			r.watch(s, table, w, unix.EPOLL_CTL_ADD, w.item.GetEvents()&^unix.EPOLLWAKEUP)
		}
	}
	return nil
}

// disarmed tells whether a watch with EPOLLONESHOT has been reported (EP_PRIVATE_BITS of fs/eventpoll.c is what is left).
func disarmed(events uint32) bool {
	const private = unix.EPOLLWAKEUP | unix.EPOLLONESHOT | unix.EPOLLET&(1<<32-1) | unix.EPOLLEXCLUSIVE
	return events&unix.EPOLLONESHOT != 0 && events&^private == 0
}

// watchDisarmed adds a watch and has it reported, which disarms it. If the file is ready for nothing, the watch stays armed for
// errors and hang-ups, which epoll_ctl(2) always adds.
func (r *Files) watchDisarmed(s *remote.Script, table *dump.FdTable, w watch) error {
	const anything = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP
	r.watch(s, table, w, unix.EPOLL_CTL_ADD, unix.EPOLLONESHOT|anything)
	b := s.Room(512)
	reported := b.Call("epoll_wait", unix.SYS_EPOLL_WAIT, r.fds[w.epoll], b.Space(12), 1, 0)
	if err := s.Run(); err != nil {
		return err
	}
	if n, err := b.Value(reported); err != nil || n == 1 {
		return err
	}
	r.watch(s, table, w, unix.EPOLL_CTL_MOD, w.item.GetEvents())
	return nil
}

func (r *Files) watch(s *remote.Script, table *dump.FdTable, w watch, operation int, events uint32) {
	number := int(w.item.GetFd())
	at, own := slices.BinarySearchFunc(table.GetFds(), w.item.GetFd(), func(fd *dump.Fd, n uint32) int {
		return cmp.Compare(fd.GetFd(), n)
	})
	moved := !own || table.GetFds()[at].GetFile() != w.item.GetFile()
	b := s.Room(512)
	if moved {
		b.Call("dup3", unix.SYS_DUP3, r.fds[w.item.GetFile()], number, 0)
	}
	var event [12]byte // struct epoll_event, include/uapi/linux/eventpoll.h, packed on x86-64
	binary.LittleEndian.PutUint32(event[:], events)
	binary.LittleEndian.PutUint64(event[4:], w.item.GetData())
	b.Call(fmt.Sprintf("epoll_ctl %d", number), unix.SYS_EPOLL_CTL, r.fds[w.epoll], operation, number, b.Data(event[:]))
	if moved && own {
		r.install(b, table.GetFds()[at])
	}
}
