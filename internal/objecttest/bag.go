package objecttest

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
)

// Bag is a sink that keeps everything, and gives it back as set and content.
type Bag struct {
	Set  *object.Set
	Data map[uint64][]byte
}

// NewBag makes an empty bag.
func NewBag() *Bag {
	return &Bag{
		Data: make(map[uint64][]byte),
		Set: &object.Set{
			Instance: &dump.Instance{}, FdTables: make(map[uint64]*dump.FdTable), Files: make(map[uint64]*dump.File),
			Pipes: make(map[uint64]*dump.Pipe), UnixSockets: make(map[uint64]*dump.UnixSocket), Ttys: make(map[uint64]*dump.Tty),
			Memories: make(map[uint64]*dump.Memory), Sockets: make(map[uint64]*dump.Socket),
			TCPQueues: make(map[uint64]*dump.TcpQueue),
		},
	}
}

// Put keeps a copy of a record.
func (b *Bag) Put(id uint64, m proto.Message) error {
	switch m := proto.Clone(m).(type) {
	case *dump.FdTable:
		b.Set.FdTables[id] = m
	case *dump.File:
		b.Set.Files[id] = m
	case *dump.Pipe:
		b.Set.Pipes[id] = m
	case *dump.UnixSocket:
		b.Set.UnixSockets[id] = m
	case *dump.Tty:
		b.Set.Ttys[id] = m
	case *dump.Memory:
		b.Set.Memories[id] = m
	case *dump.TcpQueue:
		b.Set.TCPQueues[id] = m
	case *dump.Socket:
		b.Set.Sockets[id] = m
	default:
		return fmt.Errorf("record of type %T", m)
	}
	return nil
}

// Memory keeps the content of a Memory record.
func (b *Bag) Memory(id uint64, r io.ReaderAt, size int64) (err error) {
	b.Data[id], err = io.ReadAll(io.NewSectionReader(r, 0, size))
	return err
}

// Fill gives content back.
func (b *Bag) Fill(id uint64, w io.WriterAt) error {
	_, err := w.WriteAt(b.Data[id], 0)
	return err
}

// describeBag shows what must survive a restore: ids of inodes and times left out.
func describeBag(b *Bag) string {
	var out strings.Builder
	sockets := make(map[uint64]uint64)
	for _, fd := range b.Set.FdTables[1].GetFds() {
		if id := b.Set.Files[fd.GetFile()].GetUnixSocket(); id != 0 && sockets[id] == 0 {
			sockets[id] = uint64(len(sockets) + 1)
		}
	}
	clean := func(ref *dump.FileRef) {
		if ref != nil {
			ref.Ino, ref.Mtime = 0, 0
		}
	}
	show := func(m proto.Message) { fmt.Fprintf(&out, "%s %s\n", m.ProtoReflect().Descriptor().Name(), text(m)) }
	show(b.Set.FdTables[1])
	for _, f := range object.Sorted(b.Set.Files) {
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
	for _, p := range object.Sorted(b.Set.Pipes) {
		p := proto.CloneOf(p)
		clean(p.GetFifo())
		show(p)
	}
	var list []string
	for _, u := range object.Sorted(b.Set.UnixSockets) {
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
	for _, u := range object.Sorted(b.Set.Ttys) {
		show(u)
	}
	for _, m := range object.Sorted(b.Set.Memories) {
		fmt.Fprintf(&out, "%s %.40q\n", text(m), b.Data[m.Id])
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
