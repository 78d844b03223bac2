package object

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"vps/dump"

	"google.golang.org/protobuf/proto"
)

// bag is a sink that keeps everything, and gives it back as set and content.
type bag struct {
	set  *Set
	data map[uint64][]byte
}

func newBag() *bag {
	return &bag{
		data: make(map[uint64][]byte),
		set: &Set{
			Instance: &dump.Instance{}, FdTables: make(map[uint64]*dump.FdTable), Files: make(map[uint64]*dump.File),
			Pipes: make(map[uint64]*dump.Pipe), UnixSockets: make(map[uint64]*dump.UnixSocket), Ttys: make(map[uint64]*dump.Tty),
			Memories: make(map[uint64]*dump.Memory),
		},
	}
}

func (b *bag) Put(id uint64, m proto.Message) error {
	switch m := proto.Clone(m).(type) {
	case *dump.FdTable:
		b.set.FdTables[id] = m
	case *dump.File:
		b.set.Files[id] = m
	case *dump.Pipe:
		b.set.Pipes[id] = m
	case *dump.UnixSocket:
		b.set.UnixSockets[id] = m
	case *dump.Tty:
		b.set.Ttys[id] = m
	case *dump.Memory:
		b.set.Memories[id] = m
	default:
		return fmt.Errorf("record of type %T", m)
	}
	return nil
}

func (b *bag) Memory(id uint64, r io.ReaderAt, size int64) (err error) {
	b.data[id], err = io.ReadAll(io.NewSectionReader(r, 0, size))
	return err
}

func (b *bag) Fill(id uint64, w io.WriterAt) error {
	_, err := w.WriteAt(b.data[id], 0)
	return err
}

// describeBag shows what must survive a restore: ids of inodes and times left out.
func describeBag(b *bag) string {
	var out strings.Builder
	sockets := make(map[uint64]uint64)
	for _, fd := range b.set.FdTables[1].GetFds() {
		if id := b.set.Files[fd.GetFile()].GetUnixSocket(); id != 0 && sockets[id] == 0 {
			sockets[id] = uint64(len(sockets) + 1)
		}
	}
	clean := func(ref *dump.FileRef) {
		if ref != nil {
			ref.Ino, ref.Mtime = 0, 0
		}
	}
	show := func(m proto.Message) { fmt.Fprintf(&out, "%s %s\n", m.ProtoReflect().Descriptor().Name(), text(m)) }
	show(b.set.FdTables[1])
	for _, f := range sorted(b.set.Files) {
		f := proto.CloneOf(f)
		clean(f.GetPath())
		clean(f.GetPipe().GetPath())
		if id := f.GetUnixSocket(); id != 0 {
			f.Kind = &dump.File_UnixSocket{UnixSocket: sockets[id]}
		}
		if f.GetTty() != nil {
			f.Flags &^= 0o100000 // O_LARGEFILE: none from TIOCGPTPEER
		}
		slices.SortFunc(f.GetEpoll().GetItems(), func(a, b *dump.EpollItem) int { return int(a.File) - int(b.File) })
		if v := f.GetTimerfd(); v != nil {
			v.Value = (v.Value + 5e8) / 1e9
		}
		for _, l := range f.GetLocks() {
			l.Pid = 0
		}
		if f.GetOwner() != nil {
			f.Owner.Pid = 0
		}
		show(f)
	}
	for _, p := range sorted(b.set.Pipes) {
		p := proto.CloneOf(p)
		clean(p.GetFifo())
		show(p)
	}
	var list []string
	for _, u := range sorted(b.set.UnixSockets) {
		u := proto.CloneOf(u)
		u.Id, u.Peer, u.PeerPid = sockets[u.Id], sockets[u.Peer], 0
		for i := range u.Pending {
			u.Pending[i] = sockets[u.Pending[i]]
		}
		for _, m := range u.Queue {
			m.Pid = 0
			m.Data = m.Data[:min(len(m.Data), 50)]
		}
		clean(u.Path)
		list = append(list, fmt.Sprintf("%03d %s\n", u.Id, text(u)))
	}
	slices.Sort(list)
	out.WriteString(strings.Join(list, ""))
	for _, u := range sorted(b.set.Ttys) {
		show(u)
	}
	for _, m := range sorted(b.set.Memories) {
		fmt.Fprintf(&out, "%s %.40q\n", text(m), b.data[m.Id])
	}
	return out.String()
}

func text(m proto.Message) string {
	data, err := json.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
