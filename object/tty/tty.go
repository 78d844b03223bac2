// Package tty has pseudoterminals: their settings, what waits to be read on either side, and the sessions that they control.
//
// A pty is dumped on copies of its descriptors; what waits is read and put back. It is restored by opening /dev/ptmx until
// the kernel gives its index, and filled when all open files are there.
package tty

import (
	"bytes"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/file"
)

// Numbers of character devices, Documentation/admin-guide/devices.txt.
const (
	ttyAuxMajor   = 5
	ptySlaveMajor = 136 // to 143
)

// dumper dumps the ptys of an instance.
type dumper struct {
	*file.Descriptors
	ttys  map[uint32]*ttyDump
	sides []file.Link     // a descriptor for each side of each terminal
	seen  map[string]bool // links of those that are known by them
}

// NewDumper makes the ptys' part of a dump.
func NewDumper(d *file.Descriptors) file.Dumper {
	return &dumper{Descriptors: d, ttys: make(map[uint32]*ttyDump), seen: make(map[string]bool)}
}

// Claims claims every terminal that is open for more than its path.
func (d *dumper) Claims(l *file.Look) (bool, error) {
	if l.Stat.Mode&unix.S_IFMT != unix.S_IFCHR || l.Flags()&unix.O_PATH != 0 {
		return false, nil
	}
	major, minor := unix.Major(l.Stat.Rdev), unix.Minor(l.Stat.Rdev)
	return major == ttyAuxMajor && (minor == 0 || minor == 2) || // tty, ptmx
		major >= ptySlaveMajor && major < ptySlaveMajor+8, nil
}

// ttyDump is a pty of which a descriptor has been found, or which is a process's controlling terminal.
type ttyDump struct {
	record *dump.Tty
	master *file.OpenFile
	slaves []*file.OpenFile
}

// ID is the id of the Tty record of the pty with an index in the instance's devpts.
func ID(index int) uint64 { return uint64(index) + 1 }

// Controlling returns the id of the Tty record that is meant by field tty_nr of /proc/PID/stat; 0: there is none.
func Controlling(device int) (uint64, error) {
	if device == 0 {
		return 0, nil
	}
	index, ok := ptyIndex(uint64(uint32(device)))
	if !ok {
		return 0, &object.Refusal{FD: -1, Object: fmt.Sprintf("controlling terminal %#x, which is no pty,", device)}
	}
	return ID(index), nil
}

// ptyIndex tells which pty a device number names, as the kernel shows it (new_encode_dev of include/linux/kdev_t.h).
func ptyIndex(device uint64) (int, bool) {
	major := int(device >> 8 & 0xfff)
	minor := int(device&0xff | device>>12&0xfff00)
	return (major-ptySlaveMajor)<<20 | minor, major == ptySlaveMajor
}

// Dump notes an end of a pty.
func (d *dumper) Dump(f *file.OpenFile, l *file.Look) error {
	device, err := unix.IoctlGetUint32(l.FD, unix.TIOCGDEV)
	if err != nil {
		// The other end is gone: every call on a terminal that is hung up fails with EIO.
		f.Record.Kind = &dump.File_External{External: &dump.External{What: "tty", Readable: true, Writable: true, Type: unix.S_IFCHR}}
		return nil
	}
	index, ok := ptyIndex(uint64(device))
	if !ok {
		return l.At.Refusal("terminal "+l.Link, "")
	}
	t := d.tty(index)
	end := &dump.TtyEnd{Tty: t.record.Id, Path: &dump.FileRef{Path: l.Link, Mode: l.Stat.Mode}}
	if unix.Major(l.Stat.Rdev) == ttyAuxMajor && unix.Minor(l.Stat.Rdev) == 2 {
		end.Master, t.master = true, f
	} else {
		t.slaves = append(t.slaves, f)
	}
	f.Record.Kind = &dump.File_Tty{Tty: end}
	return nil
}

func (d *dumper) tty(index int) *ttyDump {
	t := d.ttys[uint32(index)]
	if t == nil {
		t = &ttyDump{record: &dump.Tty{Id: ID(index), Index: uint32(index), Console: index == d.Externals().ConsoleTTY}}
		d.ttys[uint32(index)] = t
	}
	return t
}

// Finish writes the terminals that are open or that control a process.
func (d *dumper) Finish() error {
	for _, p := range d.Procs() {
		stat, err := object.ReadStat(p.Host)
		if err != nil {
			return err
		}
		id, err := Controlling(stat.TTY)
		if err != nil {
			return err
		}
		if id == 0 {
			continue
		}
		t := d.tty(int(id - 1))
		t.record.Session = uint32(d.Inside(stat.SID))
		if stat.TPGID > 0 {
			t.record.Foreground = uint32(d.Inside(stat.TPGID))
		}
	}
	for _, t := range object.Sorted(d.ttys) {
		if err := d.finishTty(t); err != nil {
			return fmt.Errorf("pty %d: %w", t.record.Index, err)
		}
		if err := d.Sink().Put(t.record.Id, t.record); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) finishTty(t *ttyDump) error {
	u := t.record
	u.ExternalMaster = t.master == nil && !u.Console
	if err := d.ttyFile(t); err != nil {
		return err
	}
	if t.master != nil {
		fd, err := t.master.At.Copy()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := readSettings(u, fd); err != nil {
			return err
		}
		if err := readMaster(u, fd); err != nil {
			return err
		}
		u.SlaveClosed = file.Poll(fd, 0)&unix.POLLHUP != 0
	}
	slave, err := d.openSlave(t)
	if err != nil || slave < 0 {
		return err
	}
	defer unix.Close(slave)
	if t.master == nil {
		if err := readSettings(u, slave); err != nil {
			return err
		}
	}
	return readInput(u, slave)
}

// ttyFile notes owner and mode of the slave's file.
func (d *dumper) ttyFile(t *ttyDump) error {
	var st unix.Stat_t
	if err := unix.Stat(d.slavePath(t), &st); err != nil {
		t.record.Mode = 0o620
		return nil // no name in this instance
	}
	var err error
	t.record.Uid, t.record.Gid, err = d.Owned(&st)
	t.record.Mode = st.Mode & 0o7777
	return err
}

func (d *dumper) slavePath(t *ttyDump) string {
	return fmt.Sprintf("/proc/%d/root/dev/pts/%d", d.Init(), t.record.Index)
}

// openSlave opens the slave side with flags of our own; -1 if nobody in the instance has it open: opening it then would show
// to the master.
func (d *dumper) openSlave(t *ttyDump) (int, error) {
	const flags = unix.O_RDWR | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	if len(t.slaves) == 0 {
		if t.master != nil {
			return -1, nil
		}
		fd, err := unix.Open(d.slavePath(t), flags, 0) // a controlling terminal
		if err != nil {
			return -1, fmt.Errorf("open slave: %w", err)
		}
		return fd, nil
	}
	fd, err := t.slaves[0].At.Copy()
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	if t.slaves[0].Record.GetTty().GetPath().GetPath() == "/dev/tty" {
		return unix.Open(d.slavePath(t), flags, 0)
	}
	return file.Reopen(fd, "slave", flags)
}

// readSettings reads what both sides show alike.
func readSettings(u *dump.Tty, fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return fmt.Errorf("TCGETS2: %w", err)
	}
	u.Termios = &dump.Termios{
		Iflag: t.Iflag, Oflag: t.Oflag, Cflag: t.Cflag, Lflag: t.Lflag, Line: uint32(t.Line), Cc: bytes.Clone(t.Cc[:]),
		Ispeed: t.Ispeed, Ospeed: t.Ospeed,
	}
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return fmt.Errorf("TIOCGWINSZ: %w", err)
	}
	u.Rows, u.Cols, u.Xpixel, u.Ypixel = uint32(size.Row), uint32(size.Col), uint32(size.Xpixel), uint32(size.Ypixel)
	exclusive, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL)
	if err != nil {
		return fmt.Errorf("TIOCGEXCL: %w", err)
	}
	u.Exclusive = exclusive != 0
	return nil
}

// maxInput is how much a terminal's line discipline holds: N_TTY_BUF_SIZE - 1 of drivers/tty/n_tty.c.
const maxInput = 4095

// readMaster reads what only the master shows, and what waits for its reader. That is read and put back, by TIOCSTI,
// which puts bytes into the input of the side on which it is called.
func readMaster(u *dump.Tty, fd int) error {
	locked, err := unix.IoctlGetInt(fd, unix.TIOCGPTLCK)
	if err != nil {
		return fmt.Errorf("TIOCGPTLCK: %w", err)
	}
	packet, err := unix.IoctlGetInt(fd, unix.TIOCGPKT)
	if err != nil {
		return fmt.Errorf("TIOCGPKT: %w", err)
	}
	u.Locked, u.Packet = locked != 0, packet != 0
	if file.Poll(fd, unix.POLLIN)&unix.POLLIN == 0 {
		return nil
	}
	waiting, err := unix.IoctlGetInt(fd, unix.SIOCINQ) // FIONREAD
	if err != nil || waiting == 0 {
		return err
	}
	if waiting >= maxInput {
		// There may be more behind that, and it could not all be put back.
		return fmt.Errorf("%w: %w", object.ErrBusy, &object.Refusal{FD: -1, Object: fmt.Sprintf("pty %d", u.Index), Why: fullOutput})
	}
	if u.Packet { // every read would begin with a status byte
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCPKT, 0); err != nil {
			return fmt.Errorf("TIOCPKT: %w", err)
		}
		defer unix.IoctlSetPointerInt(fd, unix.TIOCPKT, 1)
	}
	buf := make([]byte, waiting)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	u.Output = buf[:n]
	return pushInput(fd, u.Output)
}

// pushInput puts bytes into the input of a terminal.
func pushInput(fd int, data []byte) error {
	for i := range data {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&data[i]))); errno != 0 {
			return fmt.Errorf("TIOCSTI: %w", errno)
		}
	}
	return nil
}

// readInput reads what has been typed and not been read, and puts it back: whole lines and, in canonical mode, the
// beginning of one. What is lost is the column at which the line discipline believes the cursor to be.
func readInput(u *dump.Tty, slave int) error {
	old, err := unix.IoctlGetTermios(slave, unix.TCGETS2)
	if err != nil {
		return fmt.Errorf("TCGETS2: %w", err)
	}
	file.Poll(slave, unix.POLLIN) // lets what was written last come through
	waiting, err := unix.IoctlGetInt(slave, unix.SIOCINQ)
	if err != nil {
		return fmt.Errorf("FIONREAD: %w", err)
	}
	if waiting >= maxInput {
		return fmt.Errorf("%w: %w", object.ErrBusy, &object.Refusal{FD: -1, Object: fmt.Sprintf("pty %d", u.Index), Why: fullInput})
	}
	if old.Lflag&unix.ICANON != 0 {
		for file.Poll(slave, unix.POLLIN)&(unix.POLLIN|unix.POLLHUP) == unix.POLLIN {
			line, err := readTerminal(slave)
			if err != nil {
				return err
			}
			u.Lines = append(u.Lines, line)
		}
	}
	raw := *old // leaving canonical mode makes the rest readable
	raw.Lflag &^= unix.ICANON
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(slave, unix.TCSETS2, &raw); err != nil {
		return fmt.Errorf("TCSETS2: %w", err)
	}
	for err == nil && file.Poll(slave, unix.POLLIN)&(unix.POLLIN|unix.POLLHUP) == unix.POLLIN {
		var part []byte
		part, err = readTerminal(slave)
		u.Input = append(u.Input, part...)
	}
	if err == nil {
		err = writeInput(slave, old, u)
	}
	if serr := unix.IoctlSetTermios(slave, unix.TCSETS2, old); serr != nil && err == nil {
		err = fmt.Errorf("TCSETS2: %w", serr)
	}
	return err
}

func readTerminal(fd int) ([]byte, error) {
	buf := make([]byte, maxInput+1)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, fmt.Errorf("read input: %w", err)
	}
	return buf[:n], nil
}

// writeInput puts input that has been read back into a slave, in the mode in which it will be read. The terminal's
// settings are left changed.
func writeInput(slave int, t *unix.Termios, u *dump.Tty) error {
	var all []byte
	for _, line := range u.GetLines() {
		all = append(all, line...)
	}
	all = append(all, u.GetInput()...)
	if len(all) == 0 && len(u.GetLines()) == 0 {
		return nil
	}
	eof := byte(4) // any byte that is not in the input
	for bytes.IndexByte(all, eof) >= 0 && eof < 255 {
		eof++
	}
	if err := unix.IoctlSetTermios(slave, unix.TCSETS2, literally(t, eof)); err != nil {
		return fmt.Errorf("TCSETS2: %w", err)
	}
	ends := []byte{'\n'}
	for _, c := range []byte{t.Cc[unix.VEOL], t.Cc[unix.VEOL2]} {
		if c != 0 {
			ends = append(ends, c)
		}
	}
	var typed []byte
	for _, line := range u.GetLines() {
		typed = append(typed, line...)
		if len(line) == 0 || !slices.Contains(ends, line[len(line)-1]) {
			typed = append(typed, eof)
		}
	}
	return pushInput(slave, append(typed, u.GetInput()...))
}

// literally returns settings under which every byte of input is taken as it is, but for what ends a line in canonical
// mode. IXON and its characters, which input does not hold, stay as they are: switching them off would let a stopped
// terminal go on, and be told to a master in packet mode.
func literally(t *unix.Termios, eof byte) *unix.Termios {
	raw := *t
	raw.Iflag &= unix.IXON
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ISIG | unix.IEXTEN
	for _, c := range []int{unix.VERASE, unix.VKILL, unix.VWERASE, unix.VLNEXT, unix.VREPRINT} {
		raw.Cc[c] = 0 // _POSIX_VDISABLE
	}
	if raw.Lflag&unix.ICANON != 0 {
		raw.Cc[unix.VEOF] = eof
	}
	return &raw
}
