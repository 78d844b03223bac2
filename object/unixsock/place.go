package unixsock

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object"
	"vps/object/file"
)

// spot is where the name of a Unix socket leads to its file. The zero spot is anywhere.
type spot struct {
	dir  string // directory to be in
	root bool   // chroot(2)ed there
}

// spotOf finds the spot by a socket's name and where its file is.
func spotOf(sock *dump.UnixSocket) (spot, error) {
	name, file := string(sock.GetName()), sock.GetPath().GetPath()
	if file == "" || file == name || strings.HasPrefix(name, "\x00") {
		return spot{}, nil
	}
	tail := "/" + strings.TrimPrefix(path.Clean(name), "/")
	dir, ok := strings.CutSuffix(file, tail)
	if !ok || slices.Contains(strings.Split(name, "/"), "..") {
		return spot{}, fmt.Errorf("its name %s does not lead there", name)
	}
	return spot{cmp.Or(dir, "/"), strings.HasPrefix(name, "/")}, nil
}

// checkName looks at the name of a socket and at the path of its file.
func checkName(sock *dump.UnixSocket) error {
	name := sock.GetName()
	if len(name) > maxSocketName || len(name) > 0 && name[0] != 0 && slices.Contains(name, 0) {
		return fmt.Errorf("name %q is not valid", name)
	}
	if ref := sock.GetPath(); ref != nil {
		if err := object.CheckPath(ref.GetPath()); err != nil {
			return err
		}
	}
	if len(name) == 0 && (sock.GetPath() != nil || sock.GetState() == dump.UnixSocket_LISTENING) {
		return errors.New("a file or a listener without a name")
	}
	_, err := spotOf(sock)
	return err
}

// findSocketFile finds the file that a socket is bound to.
func (d *dumper) findSocketFile(s *socketDump, fd int) error {
	file, err := unix.IoctlRetInt(fd, linux.SIOCUNIXFILE)
	if err != nil {
		return fmt.Errorf("open the file of %s: %w", s.record.Name, err)
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return fmt.Errorf("fstat %s: %w", s.record.Name, err)
	}
	if st.Nlink == 0 {
		s.record.BoundDeleted = true
		return nil
	}
	where, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(file))
	if err != nil {
		return err
	}
	ref, why, err := d.Locate(where, &st, 0)
	if err != nil {
		return err
	}
	if why != "" && s.record.State == dump.UnixSocket_CONNECTED && s.record.Type != unix.SOCK_DGRAM {
		s.record.BoundDeleted = true // nobody connects to it: that its file is another one's now, or covered by a mount, cannot be told
		return nil
	}
	if why != "" || ref.GetDeleted() {
		return s.file.At.Refusal("socket "+where, cmp.Or(why, "bound to a name that is deleted, but has another"))
	}
	if d.leadsTo(string(s.record.Name), &st) {
		ref.Path = string(s.record.Name)
	}
	s.record.Path = ref
	if _, err := spotOf(s.record); err != nil {
		return s.file.At.Refusal("socket "+where, err.Error())
	}
	s.record.Uid, s.record.Gid, err = d.Owned(&st)
	s.record.Mode = st.Mode & 0o7777
	return err
}

// leadsTo tells whether a socket's own name is an absolute path to its file, perhaps through links.
func (d *dumper) leadsTo(name string, st *unix.Stat_t) bool {
	if !strings.HasPrefix(name, "/") {
		return false
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", d.Init()), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var found unix.Stat_t
	return unix.Fstat(fd, &found) == nil && found.Dev == st.Dev && found.Ino == st.Ino
}

// enter lets the maker be at a spot until [restorer.leave].
func (u *restorer) enter(at spot) {
	if at.dir == "" {
		return
	}
	if at.root {
		u.keepRoot()
	}
	b := u.s.Room(len(at.dir) + 1024)
	b.Call("chdir "+at.dir, unix.SYS_CHDIR, b.String(at.dir))
	if at.root {
		b.Call("chroot "+at.dir, unix.SYS_CHROOT, b.String("."))
	}
}

func (u *restorer) leave(at spot) {
	b := u.s.Room(512)
	if at.root {
		b.Call("chdir back", unix.SYS_FCHDIR, u.root)
		b.Call("chroot back", unix.SYS_CHROOT, b.String("."))
	} else if at.dir != "" {
		b.Call("chdir /", unix.SYS_CHDIR, b.String("/"))
	}
}

// keepRoot opens the maker's root directory, for the way back from another one.
func (u *restorer) keepRoot() {
	if u.root == 0 {
		u.root = u.Stage()
		u.Open(u.s, "/", unix.O_PATH|unix.O_DIRECTORY, u.root)
	}
}

// bindAside gives a socket a name whose file is deleted: in an empty file system that nobody else sees, where every name
// is free. The file is kept open with O_PATH as the maker's descriptor file: connections can be made by its path in /proc.
// 0: it is not needed.
func (u *restorer) bindAside(name []byte, fd, file int) {
	if name[0] == 0 {
		u.bindTo(spot{}, name, fd)
		return
	}
	u.openScratch()
	b := u.s.Room(1024)
	b.Call("chdir aside", unix.SYS_FCHDIR, u.scratch)
	b.Call("chroot aside", unix.SYS_CHROOT, b.String("."))
	var dirs []string
	for i, c := range name {
		if c == '/' && i > 0 {
			dirs = append(dirs, string(name[:i]))
			b := u.s.Room(1024)
			b.Try("make directory "+string(name[:i]), unix.SYS_MKDIRAT, unix.AT_FDCWD, b.String(string(name[:i])), 0o700)
		}
	}
	u.bindTo(spot{}, name, fd)
	b = u.s.Room(1024)
	if file != 0 {
		b.Call("open "+string(name), unix.SYS_OPENAT, unix.AT_FDCWD, b.String(string(name)), unix.O_PATH|unix.O_NOFOLLOW, 0)
		u.Settle(b, file)
	}
	b.Call("unlink "+string(name), unix.SYS_UNLINKAT, unix.AT_FDCWD, b.String(string(name)), 0)
	for _, dir := range slices.Backward(dirs) {
		b := u.s.Room(1024)
		b.Try("remove directory "+dir, unix.SYS_UNLINKAT, unix.AT_FDCWD, b.String(dir), unix.AT_REMOVEDIR)
	}
	u.leave(spot{root: true})
}

// openScratch makes the file system for deleted names; it goes with its last descriptor and the sockets.
func (u *restorer) openScratch() {
	if u.scratch != 0 {
		return
	}
	u.keepRoot()
	u.scratch = u.Stage()
	b := u.s.Room(1024)
	b.Call("open a memory file system", unix.SYS_FSOPEN, b.String("tmpfs"), unix.FSOPEN_CLOEXEC)
	b.Call("make a memory file system", unix.SYS_FSCONFIG, u.Bench()[0], unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	b.Call("mount it nowhere", unix.SYS_FSMOUNT, u.Bench()[0], unix.FSMOUNT_CLOEXEC, 0)
	b.Call("dup3", unix.SYS_DUP3, u.Bench()[1], u.scratch, 0)
	b.Call("close", unix.SYS_CLOSE, u.Bench()[1])
	b.Call("close", unix.SYS_CLOSE, u.Bench()[0])
}

// target returns how a socket is reached now: where to be, and the name to connect to there.
func (u *restorer) target(sock *dump.UnixSocket) (at spot, name []byte) {
	if fd, ok := u.deleted[sock.GetId()]; ok {
		return spot{}, []byte(file.FDPath(fd))
	}
	at, _ = spotOf(sock) // it has been checked
	return at, sock.GetName()
}
