package file

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/remote"
)

// epoll is an epoll instance, and the numbers of the inodes of what it watches.
type epoll struct {
	*OpenFile
	inodes []uint64
}

func (d *Descriptors) dumpEpoll(f *OpenFile, l *Look) error {
	e := &dump.Epoll{}
	var inodes []uint64
	for _, line := range l.info.Lines {
		if line.Key != "tfd" {
			continue
		}
		item := &dump.EpollItem{}
		var pos int64
		var ino uint64
		if _, err := fmt.Sscanf(line.Value, "%d events: %x data: %x pos:%d ino:%x", &item.Fd, &item.Events, &item.Data, &pos, &ino); err != nil {
			return fmt.Errorf("fdinfo of epoll: line %q: %w", line.Value, err)
		}
		e.Items = append(e.Items, item)
		inodes = append(inodes, ino)
	}
	f.Record.Kind = &dump.File_Epoll{Epoll: e}
	d.epolls = append(d.epolls, epoll{f, inodes})
	return nil
}

// finishEpolls finds out which open file descriptions the epoll instances watch.
func (d *Descriptors) finishEpolls() error {
	for _, f := range d.epolls {
		nth := make(map[uint32]uint32) // several files may be watched under one number
		for i, item := range f.Record.GetEpoll().GetItems() {
			slot := linux.KcmpEpollSlot{Efd: uint32(f.At.fd), Tfd: item.Fd, Toff: nth[item.Fd]}
			nth[item.Fd]++
			watched, err := d.watched(f.OpenFile, slot, f.inodes[i])
			if err != nil {
				return err
			}
			item.File = watched.ID
		}
	}
	return nil
}

func (d *Descriptors) watched(f *OpenFile, slot linux.KcmpEpollSlot, ino uint64) (*OpenFile, error) {
	same := func(g *OpenFile) (bool, error) {
		if strings.HasPrefix(g.Link, "socket:[") { // there is one open file of each; kcmp would look through the whole set
			return g.Link == fmt.Sprintf("socket:[%d]", ino), nil
		}
		order, err := linux.KcmpEpoll(g.At.host, f.At.host, g.At.fd, slot)
		if err != nil {
			return false, fmt.Errorf("compare %s with what epoll watches as %d: %w", g.Link, slot.Tfd, err)
		}
		return order == 0, nil
	}
	// Nearly always the number still means the same file.
	if g := d.byNumber[descriptor{f.At.host, int(slot.Tfd)}]; g != nil {
		if ok, err := same(g); ok || err != nil {
			return g, err
		}
	}
	for _, g := range d.files {
		if ok, err := same(g); ok || err != nil {
			return g, err
		}
	}
	return nil, f.At.Refusal(fmt.Sprintf("epoll watching %d", slot.Tfd), "no descriptor leads to that file")
}

func (r *Files) restoreEpoll(s *remote.Script, file *dump.File) {
	b := s.Room(1024)
	b.Call("epoll_create1", unix.SYS_EPOLL_CREATE1, 0)
	r.Settle(b, r.fds[file.GetId()])
}

// watch is something that an epoll instance is to watch again.
type watch struct {
	epoll uint64 // File records
	item  *dump.EpollItem
}

// planWatches decides which table an epoll instance is filled in.
func (r *Files) planWatches() error {
	for _, id := range object.SortedIDs(r.set.Files) {
		items := r.set.Files[id].GetEpoll().GetItems()
		if len(items) == 0 {
			continue
		}
		table := r.tableFor(id, items)
		if table == 0 {
			return fmt.Errorf("file %d: an epoll instance, but there is no descriptor table: %w", id, object.ErrUnsupported)
		}
		for _, item := range items {
			if _, ok := r.fds[item.GetFile()]; !ok {
				return fmt.Errorf("file %d: epoll watches file %d, which is not there", id, item.GetFile())
			}
			r.watches[table] = append(r.watches[table], watch{id, item})
		}
	}
	return nil
}

// tableFor finds the best table for filling an epoll instance. The number under which a file is added is part of what epoll
// knows it by: it is that in which most numbers still mean what they meant, of those that have the instance. One that is
// on its way in a socket's queue may be in none.
func (r *Files) tableFor(epoll uint64, items []*dump.EpollItem) uint64 {
	best, most := uint64(0), -1
	for _, id := range object.SortedIDs(r.set.FdTables) {
		fds := r.set.FdTables[id].GetFds()
		score := 0
		for _, item := range items {
			if own := descriptorOf(fds, item.GetFd()); own.GetFile() == item.GetFile() {
				score++
			}
		}
		if slices.ContainsFunc(fds, func(fd *dump.Fd) bool { return fd.GetFile() == epoll }) {
			score += len(items) + 1
		}
		if score > most {
			best, most = id, score
		}
	}
	return best
}

// descriptorOf finds a number in a table, nil if it is not there.
func descriptorOf(fds []*dump.Fd, number uint32) *dump.Fd {
	at, ok := slices.BinarySearchFunc(fds, number, func(fd *dump.Fd, n uint32) int { return cmp.Compare(fd.GetFd(), n) })
	if !ok {
		return nil
	}
	return fds[at]
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
	own := descriptorOf(table.GetFds(), w.item.GetFd())
	moved := own.GetFile() != w.item.GetFile()
	b := s.Room(512)
	if moved {
		b.Call("dup3", unix.SYS_DUP3, r.fds[w.item.GetFile()], number, 0)
	}
	var event [12]byte // struct epoll_event, include/uapi/linux/eventpoll.h, packed on x86-64
	binary.LittleEndian.PutUint32(event[:], events)
	binary.LittleEndian.PutUint64(event[4:], w.item.GetData())
	b.Call(fmt.Sprintf("epoll_ctl %d", number), unix.SYS_EPOLL_CTL, r.fds[w.epoll], operation, number, b.Data(event[:]))
	if moved && own != nil {
		r.install(b, own)
	}
}
