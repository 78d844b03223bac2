// Package pipe has pipes and FIFOs (pipe(7), fifo(7)), and what is in them.
//
// The content is dumped by tee(2), which leaves it there. A pipe is made by the maker, and filled by us when all open files
// are there.
package pipe

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// dumper dumps the pipes and FIFOs of an instance.
type dumper struct {
	*file.Descriptors
	pipes map[uint64]*pipeDump
}

// NewDumper makes the pipes' part of a dump.
func NewDumper(d *file.Descriptors) file.Dumper {
	return &dumper{Descriptors: d, pipes: make(map[uint64]*pipeDump)}
}

// Claims claims pipes, and FIFOs that are open for more than their path.
func (d *dumper) Claims(l *file.Look) (bool, error) {
	if strings.HasPrefix(l.Link, "pipe:[") {
		return true, nil
	}
	if l.Stat.Mode&unix.S_IFMT != unix.S_IFIFO || l.Flags()&unix.O_PATH != 0 {
		return false, nil
	}
	if l.Stat.Nlink == 0 {
		return true, nil
	}
	ref, err := d.Reference(l)
	if err == nil && ref.GetDeleted() {
		err = l.At.Refusal("FIFO "+l.Link, "deleted, but it has another name")
	}
	return true, err
}

// pipeDump is a pipe or FIFO of which descriptors have been found.
type pipeDump struct {
	record *dump.Pipe
	ino    uint64
	ends   []*file.OpenFile
}

// Dump notes an end of a pipe.
func (d *dumper) Dump(f *file.OpenFile, l *file.Look) error {
	id, isNew := d.ObjectID(&l.Stat)
	p := d.pipes[id]
	if isNew {
		uid, gid, err := d.Owned(&l.Stat)
		if err != nil {
			return err
		}
		p = &pipeDump{ino: l.Stat.Ino, record: &dump.Pipe{Id: id, Uid: uid, Gid: gid, Mode: l.Stat.Mode & 0o7777}}
		d.pipes[id] = p
	}
	if l.Link[0] == '/' && p.record.Fifo == nil {
		ref := &dump.FileRef{Path: strings.TrimSuffix(l.Link, file.DeletedMark), Mode: l.Stat.Mode, Deleted: true}
		if l.Stat.Nlink != 0 {
			var err error
			if ref, err = d.Reference(l); err != nil {
				return err
			}
		}
		p.record.Fifo = ref
	}
	p.ends = append(p.ends, f)
	f.Record.Kind = &dump.File_Pipe{Pipe: &dump.PipeEnd{Pipe: id, Path: p.record.Fifo}}
	return nil
}

// Finish reads what is in the pipes.
func (d *dumper) Finish() error {
	for _, p := range object.Sorted(d.pipes) {
		if err := d.finishPipe(p); err != nil {
			return err
		}
		if err := d.Sink().Put(p.record.Id, p.record); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) finishPipe(p *pipeDump) error {
	var readable, writable, packets bool
	for _, f := range p.ends {
		access := f.Record.Flags & unix.O_ACCMODE
		readable = readable || access != unix.O_WRONLY
		writable = writable || access != unix.O_RDONLY
		packets = packets || f.Record.Flags&unix.O_DIRECT != 0
	}
	at := p.ends[0].At
	fd, err := at.Copy()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if p.record.Fifo == nil && readable != writable && otherEnd(fd, readable) {
		if !d.Externals().Pipes[p.ino] {
			return at.Refusal(fmt.Sprintf("pipe:[%d]", p.ino), "its other end is outside of the instance")
		}
		for _, f := range p.ends {
			f.Record.Kind = &dump.File_External{External: &dump.External{
				What: "pipe", Readable: readable, Writable: writable, Type: unix.S_IFIFO, Pipe: p.record.Id,
			}}
		}
		if !readable {
			return nil // what is in it belongs to the reader outside
		}
	}
	if err := readPipe(fd, p.record, packets); err != nil {
		return fmt.Errorf("pipe:[%d]: %w", p.ino, err)
	}
	return nil
}

// otherEnd tells whether the other end of a pipe is open, of which fd is one.
func otherEnd(fd int, readable bool) bool {
	gone := int16(unix.POLLERR)
	if readable {
		gone = unix.POLLHUP
	}
	return file.Poll(fd, 0)&gone == 0
}

// readPipe reads capacity and content of a pipe, and leaves the content there: tee(2) duplicates it into a pipe of ours.
func readPipe(fd int, p *dump.Pipe, packets bool) error {
	capacity, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return fmt.Errorf("F_GETPIPE_SZ: %w", err)
	}
	p.Capacity = uint64(capacity)
	queued, err := unix.IoctlGetInt(fd, unix.SIOCINQ) // FIONREAD
	if err != nil || queued == 0 {
		return err
	}
	from, err := file.Reopen(fd, "pipe", unix.O_RDONLY|unix.O_NONBLOCK) // fd may be the writing end
	if err != nil {
		return err
	}
	defer unix.Close(from)
	var ours [2]int
	if err := unix.Pipe2(ours[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("pipe2: %w", err)
	}
	defer unix.Close(ours[0])
	defer unix.Close(ours[1])
	if _, err := unix.FcntlInt(uintptr(ours[1]), unix.F_SETPIPE_SZ, capacity); err != nil {
		return fmt.Errorf("F_SETPIPE_SZ %d: %w", capacity, err)
	}
	if _, err := unix.Tee(from, ours[1], queued, unix.SPLICE_F_NONBLOCK); err != nil {
		return fmt.Errorf("tee: %w", err)
	}
	buf := make([]byte, queued)
	for total := 0; total < queued; {
		n, err := unix.Read(ours[0], buf)
		if err != nil {
			return fmt.Errorf("read %d of %d bytes: %w", total, queued, err)
		}
		total += n
		data := append([]byte(nil), buf[:n]...)
		if packets || len(p.Packets) == 0 {
			p.Packets = append(p.Packets, data)
		} else {
			p.Packets[0] = append(p.Packets[0], data...)
		}
	}
	return nil
}

// pipeEnds are descriptors of the maker that are open on a pipe that is being restored.
type pipeEnds struct {
	read, write         int
	readUsed, writeUsed bool // already an end of the instance's
}

// restorer restores the pipes and FIFOs of a set.
type restorer struct {
	*file.Files
	pipes map[uint64]*pipeEnds
}

// NewRestorer makes the pipes' part of a restore.
func NewRestorer(files *file.Files) file.Restorer {
	return &restorer{Files: files, pipes: make(map[uint64]*pipeEnds)}
}

// Needs counts both ends of each pipe.
func (r *restorer) Needs() int { return 2 * len(r.Set().Pipes) }

// Make makes the pipes, and opens the FIFOs.
func (r *restorer) Make(s *remote.Script) error {
	for _, id := range object.SortedIDs(r.Set().Pipes) {
		s.About("pipe %d", id)
		if err := r.restorePipe(s, r.Set().Pipes[id]); err != nil {
			return file.Named(fmt.Sprintf("pipe %d", id), err)
		}
	}
	return nil
}

// Claims claims ends of pipes, and those whose other end was outside of the instance. There is none now: a reader comes to
// the end of what was left, a writer gets EPIPE.
func (r *restorer) Claims(f *dump.File) bool {
	return f.GetPipe() != nil || f.GetExternal().GetType() == unix.S_IFIFO
}

// Finish fills the pipes.
func (r *restorer) Finish(context.Context, *remote.Script) error {
	for _, id := range object.SortedIDs(r.Set().Pipes) {
		if err := r.fillPipe(r.Set().Pipes[id]); err != nil {
			return err
		}
	}
	return nil
}

// Close has nothing to close.
func (r *restorer) Close() error { return nil }

// restorePipe makes a pipe, or opens a FIFO.
func (r *restorer) restorePipe(s *remote.Script, p *dump.Pipe) error {
	ends := &pipeEnds{read: r.Stage(), write: r.Stage()}
	r.pipes[p.GetId()] = ends
	if ref := p.GetFifo(); ref != nil {
		if err := object.CheckPath(ref.GetPath()); err != nil {
			return err
		}
		r.openFIFO(s, p, ref, ends.read)
		s.Call("dup3", unix.SYS_DUP3, ends.read, ends.write, 0)
		ends.readUsed, ends.writeUsed = true, true
		r.Verify(func() error { return r.Check(ends.read, ref, false) })
		return nil
	}
	b := s.Room(1024)
	b.Call("pipe2", unix.SYS_PIPE2, b.Space(8), 0)
	r.Settle(b, ends.read, ends.write)
	b.Call("own pipe", unix.SYS_FCHOWN, ends.read, p.GetUid(), p.GetGid())
	b.Call("set mode of pipe", unix.SYS_FCHMOD, ends.read, p.GetMode()&0o7777)
	return nil
}

// openFIFO opens both ends of a FIFO. One that is deleted is made again, as near to where it was as there is a directory.
func (r *restorer) openFIFO(s *remote.Script, p *dump.Pipe, ref *dump.FileRef, fd int) {
	if !ref.GetDeleted() {
		r.OpenRef(s, ref, unix.O_RDWR|unix.O_NOFOLLOW, fd)
		return
	}
	r.Amid(s, path.Dir(ref.GetPath()), func(dir string) {
		r.OpenAside(s, path.Join(dir, path.Base(ref.GetPath())), unix.O_RDWR, fd, func(b *remote.Batch, at remote.Address) {
			b.Call("make FIFO "+ref.GetPath(), unix.SYS_MKNODAT, unix.AT_FDCWD, at, unix.S_IFIFO|p.GetMode()&0o7777, 0)
		})
	})
	s.Call("own FIFO", unix.SYS_FCHOWN, fd, p.GetUid(), p.GetGid())
}

// fillPipe sets the capacity of a pipe and writes its content.
func (r *restorer) fillPipe(p *dump.Pipe) error {
	const normal = 64 << 10
	if p.GetCapacity() == normal && len(p.GetPackets()) == 0 && len(r.Set().Pipes) < 256 {
		return nil // far from the number of pipes at which a user gets smaller ones (pipe(7))
	}
	f, err := r.Maker().Take(r.pipes[p.GetId()].write)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	// We may be allowed more than the instance is.
	if most, err := maxPipe(); err != nil {
		return err
	} else if p.GetCapacity() > most {
		return fmt.Errorf("pipe %d: a capacity of %d bytes is more than %d (/proc/sys/%s)", p.GetId(), p.GetCapacity(), most, maxPipeFile)
	}
	if p.GetCapacity() != 0 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, int(p.GetCapacity())); err != nil {
			return fmt.Errorf("pipe %d: F_SETPIPE_SZ %d: %w", p.GetId(), p.GetCapacity(), err)
		}
	}
	if len(p.GetPackets()) == 0 {
		return nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("pipe %d: F_GETFL: %w", p.GetId(), err)
	}
	mode := unix.O_NONBLOCK
	if len(p.GetPackets()) > 1 || r.packetMode(p) {
		mode |= unix.O_DIRECT
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|mode); err != nil {
		return fmt.Errorf("pipe %d: F_SETFL: %w", p.GetId(), err)
	}
	for _, packet := range p.GetPackets() {
		n, err := unix.Write(fd, packet)
		if err == nil && n != len(packet) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return fmt.Errorf("pipe %d: write %d bytes: %w", p.GetId(), len(packet), err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags); err != nil {
		return fmt.Errorf("pipe %d: F_SETFL: %w", p.GetId(), err)
	}
	return nil
}

const maxPipeFile = "fs/pipe-max-size"

// maxPipe returns the highest capacity of a pipe without CAP_SYS_RESOURCE (pipe(7)).
func maxPipe() (uint64, error) {
	text, err := os.ReadFile("/proc/sys/" + maxPipeFile)
	if err != nil {
		return 0, err
	}
	most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/sys/%s: %w", maxPipeFile, err)
	}
	return most, nil
}

func (r *restorer) packetMode(p *dump.Pipe) bool {
	for _, f := range r.Set().Files {
		if f.GetPipe().GetPipe() == p.GetId() && f.GetFlags()&unix.O_DIRECT != 0 {
			return true
		}
	}
	return false
}

// Restore makes an open file description of a pipe. Further ones of the same end are opened as /dev/stdin would be.
func (r *restorer) Restore(s *remote.Script, f *dump.File, fd int) error {
	id := f.GetPipe().GetPipe()
	if f.GetPipe() == nil {
		id = f.GetExternal().GetPipe()
	}
	ends, ok := r.pipes[id]
	if !ok {
		return fmt.Errorf("there is no pipe %d", id)
	}
	switch access := f.GetFlags() & (unix.O_ACCMODE | unix.O_PATH); {
	case access == unix.O_RDONLY && !ends.readUsed:
		ends.readUsed = true
		s.Call("dup3", unix.SYS_DUP3, ends.read, fd, 0)
	case access == unix.O_WRONLY && !ends.writeUsed:
		ends.writeUsed = true
		s.Call("dup3", unix.SYS_DUP3, ends.write, fd, 0)
	default:
		r.Open(s, file.FDPath(ends.read), file.OpenFlags(f.GetFlags())&^unix.O_NOFOLLOW|unix.O_NONBLOCK, fd)
	}
	return nil
}
