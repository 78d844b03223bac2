package tty

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
	"vps/remote"
)

// ttyEnds are descriptors of the maker that are open on a pty that is being restored; -1: none.
type ttyEnds struct {
	master, slave int
	termios       unix.Termios
	masterUsed    bool
}

// Restorer restores the ptys of a set.
type Restorer struct {
	files      *file.Files
	console    *os.File // master of the pty that is the console; nil: there is none
	consoleTTY int      // its index

	ttys    map[uint64]*ttyEnds
	masters map[uint64]*os.File // of ttys whose master was outside
}

// NewRestorer makes the ptys' part of a restore. console is the master of the pty that is the console, with its index;
// nil: there is none.
func NewRestorer(files *file.Files, console *os.File, index int) *Restorer {
	return &Restorer{
		files: files, console: console, consoleTTY: index,
		ttys: make(map[uint64]*ttyEnds), masters: make(map[uint64]*os.File),
	}
}

// Needs counts both ends of each pty.
func (r *Restorer) Needs() int { return 2 * len(r.files.Set().Ttys) }

// Claims claims terminals, and those that are hung up.
func (r *Restorer) Claims(f *dump.File) bool {
	return f.GetTty() != nil || f.GetExternal().GetType() == unix.S_IFCHR
}

// maxPTY bounds the indexes in a snapshot: kernel.pty.max's default (pty(7)).
const maxPTY = 4096

// Make makes the ptys, each with its index.
func (r *Restorer) Make(s *remote.Script) error {
	byIndex := make(map[uint32]uint64)
	var missing, top uint32
	for _, id := range object.SortedIDs(r.files.Set().Ttys) {
		t := r.files.Set().Ttys[id]
		if t.GetIndex() >= maxPTY || ID(int(t.GetIndex())) != id || len(t.GetTermios().GetCc()) != len(unix.Termios{}.Cc) {
			return fmt.Errorf("pty %d: index %d or settings are not valid", id, t.GetIndex())
		}
		r.ttys[id] = &ttyEnds{master: -1, slave: -1, termios: termiosOf(t.GetTermios())}
		if t.GetConsole() {
			if t.GetExternalMaster() || r.console == nil || r.consoleTTY != int(t.GetIndex()) {
				return fmt.Errorf("pty %d: the console is another one", t.GetIndex())
			}
			continue
		}
		byIndex[t.GetIndex()] = id
		missing++
		top = max(top, t.GetIndex())
	}
	var spare []int
	for missing > 0 { // the kernel gives the lowest free index
		fd := r.files.Stage()
		r.files.Open(s, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, fd)
		index, err := r.ttyIndex(s, fd)
		if err != nil {
			return err
		}
		if id, ok := byIndex[index]; ok {
			r.ttys[id].master = fd
			missing--
			continue
		}
		if spare = append(spare, fd); index > top {
			return fmt.Errorf("a pty of the snapshot is in use: the next free index is %d", index)
		}
	}
	for _, fd := range spare {
		s.Call("close", unix.SYS_CLOSE, fd)
	}
	for _, id := range object.SortedIDs(r.files.Set().Ttys) {
		s.About("pty %d", r.files.Set().Ttys[id].GetIndex())
		r.setTty(s, r.files.Set().Ttys[id])
	}
	return nil
}

// ttyIndex tells the index of a master of the maker's.
func (r *Restorer) ttyIndex(s *remote.Script, fd int) (uint32, error) {
	if err := s.Run(); err != nil {
		return 0, err
	}
	f, err := r.files.Maker().Take(fd)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	index, err := unix.IoctlGetUint32(int(f.Fd()), unix.TIOCGPTN)
	if err != nil {
		return 0, fmt.Errorf("TIOCGPTN: %w", err)
	}
	return index, nil
}

func termiosOf(t *dump.Termios) unix.Termios {
	out := unix.Termios{
		Iflag: t.GetIflag(), Oflag: t.GetOflag(), Cflag: t.GetCflag(), Lflag: t.GetLflag(), Line: uint8(t.GetLine()),
		Ispeed: t.GetIspeed(), Ospeed: t.GetOspeed(),
	}
	copy(out.Cc[:], t.GetCc())
	return out
}

func slavePath(t *dump.Tty) string { return "/dev/pts/" + strconv.Itoa(int(t.GetIndex())) }

// setTty opens the slave, if it has been open, and sets what both sides show.
func (r *Restorer) setTty(s *remote.Script, t *dump.Tty) {
	ends := r.ttys[t.GetId()]
	fd := ends.master
	if fd >= 0 {
		b := s.Room(512)
		b.Call("unlock pty", unix.SYS_IOCTL, fd, unix.TIOCSPTLCK, b.Words(0))
	}
	if r.slaveOpened(t) {
		ends.slave = r.files.Stage()
		r.files.Open(s, slavePath(t), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, ends.slave)
		fd = ends.slave
	}
	b := s.Room(1024)
	b.Call("set terminal", unix.SYS_IOCTL, fd, unix.TCSETS2, object.Place(b, &ends.termios))
	b.Call("set window size", unix.SYS_IOCTL, fd, unix.TIOCSWINSZ, object.Place(b, &unix.Winsize{
		Row: uint16(t.GetRows()), Col: uint16(t.GetCols()), Xpixel: uint16(t.GetXpixel()), Ypixel: uint16(t.GetYpixel()),
	}))
	b.Try("own pty", unix.SYS_FCHOWNAT, unix.AT_FDCWD, b.String(slavePath(t)), t.GetUid(), t.GetGid(), 0)
	b.Try("set mode of pty", unix.SYS_FCHMODAT, unix.AT_FDCWD, b.String(slavePath(t)), t.GetMode()&0o7777)
}

// slaveOpened tells whether the slave of a pty has ever been open. Opening it shows to the master when it is closed.
func (r *Restorer) slaveOpened(t *dump.Tty) bool {
	if t.GetConsole() || t.GetExternalMaster() || t.GetSlaveClosed() || t.GetSession() != 0 {
		return true
	}
	for _, f := range r.files.Set().Files {
		if end := f.GetTty(); end != nil && end.GetTty() == t.GetId() && !end.GetMaster() {
			return true
		}
	}
	return false
}

// Finish puts back what waits to be read, and sets what would have been in the way.
func (r *Restorer) Finish(_ context.Context, s *remote.Script) error {
	if err := s.Run(); err != nil {
		return err
	}
	for _, id := range object.SortedIDs(r.files.Set().Ttys) {
		t, ends := r.files.Set().Ttys[id], r.ttys[id]
		if err := r.fillTty(t, ends); err != nil {
			return fmt.Errorf("pty %d: %w", t.GetIndex(), err)
		}
		if t.GetPacket() && ends.master >= 0 {
			b := s.Room(512)
			b.Call("set packet mode", unix.SYS_IOCTL, ends.master, unix.TIOCPKT, b.Words(1))
		}
		if t.GetExclusive() {
			s.Call("set exclusive mode", unix.SYS_IOCTL, max(ends.master, ends.slave), unix.TIOCEXCL, 0)
		}
		if t.GetLocked() && ends.master >= 0 {
			b := s.Room(512)
			b.Call("lock pty", unix.SYS_IOCTL, ends.master, unix.TIOCSPTLCK, b.Words(1))
		}
		if t.GetExternalMaster() {
			master, err := r.files.Maker().Take(ends.master)
			if err != nil {
				return err
			}
			r.masters[id] = master
		}
	}
	return nil
}

func (r *Restorer) fillTty(t *dump.Tty, ends *ttyEnds) error {
	if len(t.GetOutput()) > 0 && ends.master >= 0 {
		master, err := r.files.Maker().Take(ends.master)
		if err != nil {
			return err
		}
		defer master.Close()
		if err := pushInput(int(master.Fd()), t.GetOutput()); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	if len(t.GetInput())+len(t.GetLines()) == 0 || ends.slave < 0 {
		return nil
	}
	slave, err := r.files.Maker().Take(ends.slave)
	if err != nil {
		return err
	}
	defer slave.Close()
	if err := writeInput(int(slave.Fd()), &ends.termios, t); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS2, &ends.termios); err != nil {
		return fmt.Errorf("TCSETS2: %w", err)
	}
	return nil
}

// Restore opens an end of a pty.
func (r *Restorer) Restore(s *remote.Script, f *dump.File, fd int) error {
	end := f.GetTty()
	if end == nil {
		r.hungUpTTY(s, fd, f.GetFlags())
		return nil
	}
	ends, ok := r.ttys[end.GetTty()]
	if !ok {
		return fmt.Errorf("there is no pty %d", end.GetTty())
	}
	t := r.files.Set().Ttys[end.GetTty()]
	if end.GetMaster() {
		if ends.masterUsed || ends.master < 0 || t.GetExternalMaster() {
			return fmt.Errorf("pty %d has no master here, or two", t.GetIndex())
		}
		ends.masterUsed = true
		s.Call("dup3", unix.SYS_DUP3, ends.master, fd, 0)
		return nil
	}
	path := end.GetPath().GetPath() // /dev/console may be mounted from a pty
	if path == "/dev/tty" || strings.HasPrefix(path, "/dev/pts/") {
		path = slavePath(t)
	}
	if err := object.CheckPath(path); err != nil {
		return err
	}
	r.files.OpenNamed(s, path, file.OpenFlags(f.GetFlags())|unix.O_NOCTTY, fd)
	r.files.Verify(func() error { return r.checkTty(fd, path, t) })
	return nil
}

func (r *Restorer) checkTty(fd int, path string, t *dump.Tty) error {
	f, err := r.files.Maker().Take(fd)
	if err != nil {
		return err
	}
	defer f.Close()
	device, err := unix.IoctlGetUint32(int(f.Fd()), unix.TIOCGDEV)
	if err != nil {
		return fmt.Errorf("%s is no terminal: %w", path, err)
	}
	if index, ok := ptyIndex(uint64(device)); !ok || index != int(t.GetIndex()) {
		return fmt.Errorf("%s is not pty %d: %w", path, t.GetIndex(), object.ErrChanged)
	}
	return nil
}

// hungUpTTY opens a terminal whose master is closed.
func (r *Restorer) hungUpTTY(s *remote.Script, fd int, flags uint32) {
	master := r.files.Stage()
	r.files.Open(s, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, master)
	b := s.Room(1024)
	b.Call("unlock pty", unix.SYS_IOCTL, master, unix.TIOCSPTLCK, b.Words(0))
	b.Call("open slave", unix.SYS_IOCTL, master, unix.TIOCGPTPEER, file.OpenFlags(flags)|unix.O_NOCTTY)
	r.files.Settle(b, fd)
	b.Call("close master", unix.SYS_CLOSE, master)
}

// SetTTY adds the call by which a session leader takes a Tty record's terminal for its session (TIOCSCTTY of ioctl_tty(2)).
// The process still has the maker's descriptors.
func (r *Restorer) SetTTY(b *remote.Batch, tty uint64) error {
	ends, ok := r.ttys[tty]
	if !ok || ends.slave < 0 {
		return fmt.Errorf("there is no pty %d to be a controlling terminal", tty)
	}
	b.Call("take controlling terminal", unix.SYS_IOCTL, ends.slave, unix.TIOCSCTTY, 0)
	return nil
}

// SetForeground adds the call by which a session leader makes the recorded process group of its terminal the one in the
// foreground. All processes are born; the leader still has the maker's descriptors.
func (r *Restorer) SetForeground(b *remote.Batch, tty uint64) error {
	ends, ok := r.ttys[tty]
	if !ok || ends.slave < 0 {
		return fmt.Errorf("there is no pty %d to be a controlling terminal", tty)
	}
	if group := r.files.Set().Ttys[tty].GetForeground(); group != 0 {
		// A group whose processes have all ended is nobody's.
		b.Try("set foreground group", unix.SYS_IOCTL, ends.slave, unix.TIOCSPGRP, b.Words(uint64(group)))
	}
	return nil
}

// Masters are the master sides of the terminals whose masters were outside, by Tty record. They belong to r: when it is
// closed the terminals are hung up.
func (r *Restorer) Masters() map[uint64]*os.File { return r.masters }

// Close closes the masters.
func (r *Restorer) Close() error {
	var errs []error
	for _, f := range r.masters {
		errs = append(errs, f.Close())
	}
	r.masters = nil
	return errors.Join(errs...)
}
