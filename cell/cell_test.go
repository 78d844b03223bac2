package cell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/account"
	"vps/cell/reaper"
	"vps/devfs"
	"vps/internal/leak"
	"vps/internal/testimage"
	"vps/priv"
	"vps/remote"
)

func TestMain(m *testing.M) { leak.Main(m) }

// site is where a test builds its cells.
type site struct {
	t     testing.TB
	hosts *account.Hierarchies
	home  string
	group *account.Group
	spec  Spec
}

const firstUID = 1 << 20

func newSite(t testing.TB, opts ...testimage.Option) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	hosts, err := account.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, hosts: hosts, home: fmt.Sprintf("celltest%d", os.Getpid())}
	if s.group, err = hosts.Create(s.home, "web", firstUID); err != nil {
		t.Fatal(err)
	}
	nodes, err := devfs.Default().Nodes(os.DirFS("/dev"))
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(testimage.Build(t, opts...), "..", "run")
	if err := os.Mkdir(run, 0o711); err != nil {
		t.Fatal(err)
	}
	s.spec = Spec{
		ID: "web", Root: filepath.Join(run, "..", "root"), Hostname: "web", Run: run, Console: true,
		UserNS:  []remote.IDMap{{Inside: 0, Host: firstUID, Size: 65536}},
		Group:   s.group,
		Devices: nodes, Masks: []string{"/proc/kallsyms", "/proc/acpi", "/proc/missing"},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.group.Remove(ctx); err != nil {
			t.Error(err)
		}
		if err := hosts.RemoveHome(ctx, s.home); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) rights() Rights {
	s.t.Helper()
	set, err := priv.New(nil, nil, nil, s.spec.UserNS != nil)
	if err != nil {
		s.t.Fatal(err)
	}
	filter, err := set.Filter()
	if err != nil {
		s.t.Fatal(err)
	}
	return Rights{Capabilities: set.Capabilities(), Filter: filter}
}

func (s *site) build() *Cell {
	s.t.Helper()
	c, err := Build(s.t.Context(), s.spec)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.destroy(c) })
	return c
}

func (s *site) destroy(c *Cell) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.Destroy(ctx); err != nil {
		s.t.Error(err)
	}
}

func (s *site) start(args ...string) *Cell {
	s.t.Helper()
	c := s.build()
	if err := c.ExecInit(s.t.Context(), InitSpec{Args: args, Env: []string{"PATH=/sbin:/bin", "container=vps"}, Rights: s.rights()}); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// output runs a shell command inside and returns what it prints.
func (s *site) output(c *Cell, script string) string {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	p, _, err := c.Exec(s.t.Context(), ExecSpec{Args: []string{"sh", "-c", script}, Stdio: [3]*os.File{nil, w, w}, Rights: s.rights()})
	w.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := p.Wait(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestInside(t *testing.T) {
	s := newSite(t)
	if err := os.Chown(filepath.Join(s.spec.Root, "home"), 1000, 1000); err != nil {
		t.Fatal(err)
	}
	c := s.start("/sbin/init")
	for _, test := range []struct{ script, want string }{
		{"cat /proc/1/comm", "init"},
		{"readlink -f /proc/1/exe", "/usr/bin/busybox"},
		{"hostname", "web"},
		{"cat /proc/self/uid_map | tr -s ' '", fmt.Sprintf(" 0 %d 65536", firstUID)},
		{"stat -c %u:%g /home /etc/passwd", "1000:1000\n0:0"},
		{"touch /tmp/new && stat -c %u /tmp/new", "0"},
		{"cut -d. -f1 /proc/uptime | grep -cx '[0-5]'", "1"},
		{"wc -c < /proc/kallsyms", "0"},
		{"ls /dev | tr '\\n' ' '", "console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"},
		{"echo hello > /dev/null && head -c 3 /dev/zero | wc -c", "3"},
		{"ip addr show lo | grep -c 'inet 127.0.0.1'", "1"},
		{"cat /proc/self/cgroup | grep ^0:", "0::/exec"},
		{"ls /sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.procs"},
		{"readlink /proc/1/fd/0", "/dev/console"},
		{"ls /proc/1/fd | tr '\\n' ' '", "0 1 2"},
		{"grep -c 'vps\\|memfd' /proc/1/maps", "0"},
		{"awk '{print $5}' /proc/self/mountinfo | sort | tr '\\n' ' '",
			"/ /dev /dev/console /dev/full /dev/mqueue /dev/null /dev/pts /dev/random /dev/shm /dev/tty /dev/urandom /dev/zero /proc /proc/acpi /proc/kallsyms /proc/sys/kernel/random/boot_id /sys /sys/fs/cgroup"},
		{"ps -o pid,comm | grep -c stub", "0"},
		{"grep SigBlk /proc/1/status /proc/self/status | awk '{print $2}' | sort -u", "0000000000000000"},
		{"ls -di / > /dev/null; pwd; umask", "/\n0022"},
	} {
		if got := s.output(c, test.script); got != strings.TrimSpace(test.want) && strings.TrimSpace(got) != strings.TrimSpace(test.want) {
			t.Errorf("%s:\n got %q\nwant %q", test.script, got, test.want)
		}
	}
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		inits := s.output(c, "readlink /proc/1/ns/"+ns)
		if inits == ours || inits != s.output(c, "readlink /proc/self/ns/"+ns) {
			t.Errorf("namespace %s: ours is %s, init's %s", ns, ours, inits)
		}
	}
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(s.spec.Root, "tmp/new"), &stat); err != nil || stat.Uid != 0 {
		t.Errorf("a file of the instance's root belongs to %d on disk, %v", stat.Uid, err)
	}
}

func TestConsoleHistory(t *testing.T) {
	s := newSite(t)
	c := s.start("/bin/sh", "-c", "echo on the console; exec sleep 1000")
	deadline := time.Now().Add(5 * time.Second)
	for {
		data, err := os.ReadFile(c.History())
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("on the console\r\n")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("history: %q", data)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestInitEnds(t *testing.T) {
	for _, test := range []struct {
		script string
		code   int
		status int
	}{
		{"exit 3", reaper.Exited, 3},
		{"kill -9 $$; reboot -f", reaper.Killed, int(unix.SIGHUP)},
		{"poweroff -f", reaper.Killed, int(unix.SIGINT)},
	} {
		s := newSite(t)
		c := s.start("/bin/sh", "-c", test.script)
		e, err := c.Process().Wait(t.Context())
		if err != nil || e.Code != test.code || e.Status != test.status {
			t.Errorf("%s: %+v, %v", test.script, e, err)
		}
		s.destroy(c)
		s.group.Remove(t.Context())
	}
}

func BenchmarkStart(b *testing.B) {
	s := newSite(b)
	for b.Loop() {
		c := s.start("/bin/sh", "-c", "exec sleep 1000")
		b.StopTimer()
		s.destroy(c)
		b.StartTimer()
	}
}

func BenchmarkExec(b *testing.B) {
	s := newSite(b)
	c := s.start("/bin/sh", "-c", "exec sleep 1000")
	for b.Loop() {
		p, _, err := c.Exec(b.Context(), ExecSpec{Args: []string{"/bin/true"}, Rights: s.rights()})
		if err != nil {
			b.Fatal(err)
		}
		if e, err := p.Wait(b.Context()); err != nil || e.Status != 0 {
			b.Fatal(e, err)
		}
	}
}

// A console that is spewed at does not fill the disk, nor does it ever stop.
func TestHistoryIsBounded(t *testing.T) {
	s := newSite(t)
	c := s.start("/bin/sh", "-c", "stty -opost; exec yes 0123456789012345678901234567890123456789012345678901234567890")
	var stat unix.Stat_t
	grown := func(more int64) {
		t.Helper()
		before := stat.Size
		for end := time.Now().Add(10 * time.Second); stat.Size < before+more; time.Sleep(time.Millisecond) {
			if err := unix.Stat(c.History(), &stat); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(end) {
				t.Fatalf("the history has %d bytes and does not grow", stat.Size)
			}
		}
	}
	for range 3 {
		grown(2 * historyKept)
		if err := c.TrimHistory(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.group.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.TrimHistory(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(c.History(), &stat); err != nil {
		t.Fatal(err)
	}
	if err := s.group.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if used := stat.Blocks * 512; used > 4*historyKept {
		t.Errorf("the history takes %d bytes", used)
	}
	// At its limit the keeper goes on reading, and writes again when it may.
	limit := unix.Rlimit{Cur: uint64(stat.Size), Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(c.Keeper.PID, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.output(c, "echo alive; ulimit -f"); got != "alive\nunlimited" {
		t.Errorf("exec at the limit: %q", got)
	}
	if err := c.TrimHistory(); err != nil {
		t.Fatal(err)
	}
	grown(historyKept)
}
