package testimage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// image is a root file system under construction. Paths are absolute, as seen inside.
type image struct {
	root      string
	libraries map[string]bool // already there, by path on the host
}

const inittab = `::sysinit:/etc/init.d/rcS
::respawn:-/bin/sh
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/sync
`

const profile = `export PATH=/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root
export HISTFILE=/root/.ash_history
export PS1='\u@\h:\w\$ '
cd
`

// base makes what every image has: the merged-/usr layout, mount points, busybox under all its names, and the
// few files in /etc without which a login shell looks odd.
func (m *image) base() error {
	for _, d := range []string{"/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/etc/init.d", "/var/log",
		"/home", "/mnt", "/proc", "/sys", "/dev", "/run"} {
		if err := mkdir(m.path(d), 0o755); err != nil {
			return err
		}
	}
	if err := mkdir(m.path("/root"), 0o700); err != nil {
		return err
	}
	for _, d := range []string{"/tmp", "/var/tmp"} {
		if err := mkdir(m.path(d), 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, m.path(d)); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		path, content string
		mode          fs.FileMode
	}{
		{"/etc/inittab", inittab, 0o644},
		{"/etc/init.d/rcS", "#!/bin/sh\n", 0o755},
		{"/etc/profile", profile, 0o644},
		{"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644},
		{"/etc/group", "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n", 0o644},
		{"/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644},
		{"/etc/shells", "/bin/sh\n", 0o644},
	} {
		if err := m.write(f.path, f.content, f.mode); err != nil {
			return err
		}
	}
	return m.busybox("/bin/busybox")
}

// busybox adds the host's static busybox and a link for each of its applets.
func (m *image) busybox(host string) error {
	if err := m.program(host, "/usr/bin/busybox"); err != nil {
		return err
	}
	if len(m.libraries) > 0 {
		return fmt.Errorf("%s is not the static one (Debian: busybox-static)", host)
	}
	list, err := exec.Command(host, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("%s --list-full: %w", host, err)
	}
	for applet := range strings.Lines(string(list)) {
		applet = strings.TrimSpace(applet)
		link, target := "/usr/bin/", "busybox"
		if dir := filepath.Base(filepath.Dir(applet)); dir == "sbin" {
			link, target = "/usr/sbin/", "../bin/busybox"
		}
		err := os.Symlink(target, m.path(link+filepath.Base(applet)))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// python adds the interpreter that the link host leads to, and its library without tests and packaging tools.
func (m *image) python(host string) error {
	program, err := filepath.EvalSymlinks(host)
	if err != nil {
		return err
	}
	if err := m.program(program, program); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Base(program), m.path("/usr/bin/python3")); err != nil {
		return err
	}
	library := "/usr/lib/" + filepath.Base(program)
	skip := map[string]bool{"dist-packages": true, "ensurepip": true, "idlelib": true, "lib2to3": true,
		"pydoc_data": true, "test": true, "tkinter": true, "unittest": true, "venv": true}
	return filepath.WalkDir(library, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (skip[d.Name()] || strings.HasPrefix(d.Name(), "config-")):
			return filepath.SkipDir
		case d.IsDir():
			return mkdir(m.path(path), 0o755)
		case strings.HasSuffix(path, ".so"):
			return m.program(path, path)
		case d.Type().IsRegular():
			return copyFile(path, m.path(path))
		}
		return nil
	})
}

// program copies an ELF file of the host with all shared libraries it needs; they keep their names.
func (m *image) program(host, guest string) error {
	host, err := filepath.EvalSymlinks(host)
	if err != nil {
		return fmt.Errorf("%w (run scripts/setup)", err)
	}
	if err := mkdir(m.path(filepath.Dir(guest)), 0o755); err != nil {
		return err
	}
	if info, err := os.Lstat(m.path(guest)); err == nil && info.Mode()&fs.ModeSymlink != 0 { // an applet of busybox
		if err := os.Remove(m.path(guest)); err != nil {
			return err
		}
	}
	if err := copyFile(host, m.path(guest)); err != nil {
		return err
	}
	return m.addLibraries(host)
}

func (m *image) write(path, content string, mode fs.FileMode) error {
	path = m.path(path)
	if err := mkdir(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func (m *image) path(guest string) string { return filepath.Join(m.root, guest) }

// mkdir makes a directory with exactly this mode, whatever the umask; one that is there is left as it is.
func mkdir(path string, mode fs.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// copyFile copies content and permission bits of a regular file.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := out.ReadFrom(in); err != nil { // copy_file_range(2), and reflinks where the file system has them
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	if err := out.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	return out.Close()
}
