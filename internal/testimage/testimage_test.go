package testimage

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestProgramsRun runs the programs of an image with the image as their root.
func TestProgramsRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root := Build(t, Redis(), Python(), File("/etc/motd", "hello\n", 0o644))
	for _, c := range []struct {
		name, want string
		argv       []string
	}{
		{"shell", "hello", []string{"/bin/sh", "-c", "cat /etc/motd"}},
		{"applet in sbin", "Init is the first process started", []string{"/sbin/init", "--help"}},
		{"redis", "Redis server v=", []string{"/usr/bin/redis-server", "--version"}},
		{"redis-cli", "redis-cli", []string{"/usr/bin/redis-cli", "--version"}},
		{"python", "42", []string{"/usr/bin/python3", "-c", "import ctypes, json, mmap, socket, threading; print(6*7)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(c.argv[0], c.argv[1:]...)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%q: %v, output %q, want %q in it", c.argv, err, out, c.want)
			}
		})
	}
}

func TestModesAndLayout(t *testing.T) {
	root := Build(t, Inittab("::respawn:/bin/sleep 1"))
	for path, want := range map[string]os.FileMode{
		"/":          os.ModeDir | 0o755,
		"/tmp":       os.ModeDir | os.ModeSticky | 0o777,
		"/root":      os.ModeDir | 0o700,
		"/dev":       os.ModeDir | 0o755,
		"/bin/init":  0, // lies in /sbin
		"/sbin/init": os.ModeSymlink | 0o777,
	} {
		info, err := os.Lstat(filepath.Join(root, path))
		switch {
		case want == 0 && err == nil:
			t.Errorf("%s is there", path)
		case want != 0 && err != nil:
			t.Error(err)
		case want != 0 && info.Mode() != want:
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
	tab, err := os.ReadFile(filepath.Join(root, "/etc/inittab"))
	if err != nil || !strings.HasSuffix(string(tab), "\n::respawn:/bin/sleep 1\n") {
		t.Errorf("inittab %q, %v", tab, err)
	}
}

func TestMissingProgramIsNamed(t *testing.T) {
	err := Make(t.TempDir(), Program("/usr/bin/no-such-program", "/bin/x"))
	if err == nil || !strings.Contains(err.Error(), "no-such-program") || !strings.Contains(err.Error(), "scripts/setup") {
		t.Errorf("error %v does not name the program and the remedy", err)
	}
}

func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		if err := Make(filepath.Join(b.TempDir(), "root"), Redis()); err != nil {
			b.Fatal(err)
		}
	}
}
