package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/config"
	"vps/internal/nettest"
	"vps/internal/testimage"
)

func TestMain(m *testing.M) {
	if home := os.Getenv("VPS_TEST_DAEMON"); home != "" {
		daemon(home)
		return
	}
	nettest.Main(m)
}

// testHost is a host in a directory of the test's own.
type testHost struct {
	*Host
	t    testing.TB
	dir  string
	root string
}

func newHost(t testing.TB, opts ...testimage.Option) *testHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h := &testHost{t: t, root: testimage.Build(t, opts...)}
	h.dir = filepath.Join(filepath.Dir(h.root), "home")
	h.open()
	t.Cleanup(h.cleanUp)
	return h
}

// open opens the home, again if need be.
func (h *testHost) open() {
	h.t.Helper()
	var err error
	log := slog.New(slog.NewTextHandler(h.t.Output(), nil))
	if h.Host, err = Open(h.t.Context(), Options{Home: h.dir, Log: log}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *testHost) cleanUp() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, info := range h.List() {
		if info.State == Suspended {
			if err := h.Abort(ctx, info.ID); err != nil {
				h.t.Error(err)
			}
		}
		if err := h.Stop(ctx, info.ID, time.Second); err != nil {
			h.t.Error(err)
		}
		if err := h.Remove(ctx, info.ID); err != nil {
			h.t.Error(err)
		}
	}
	if err := h.Close(); err != nil {
		h.t.Error(err)
	}
}

// config is the configuration of a busybox system, with more lines if wanted.
func (h *testHost) config(lines ...string) *config.Config {
	h.t.Helper()
	text := fmt.Sprintf("NAME=web\nFSROOT=%s\nINIT=/sbin/init\nSTOP_TIMEOUT=5\n%s\n", h.root, strings.Join(lines, "\n"))
	text = lastOnly(text)
	cfg, err := config.Parse("test", strings.NewReader(text))
	if err != nil {
		h.t.Fatal(err)
	}
	return cfg
}

// initLine is the configuration line of a shell script as init.
func initLine(script string) string {
	return "INIT='/bin/sh -c \"" + script + "\"'"
}

// lastOnly leaves the last line of each key.
func lastOnly(text string) string {
	var keys []string
	lines := make(map[string]string)
	for line := range strings.Lines(text) {
		key, _, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		if lines[key] == "" {
			keys = append(keys, key)
		}
		lines[key] = line
	}
	var all strings.Builder
	for _, key := range keys {
		all.WriteString(lines[key])
	}
	return all.String()
}

func (h *testHost) start(id string, lines ...string) {
	h.t.Helper()
	if err := h.Start(h.t.Context(), id, h.config(lines...)); err != nil {
		h.t.Fatal(err)
	}
}

// run executes a command inside and returns its output and status.
func (h *testHost) run(id string, spec ExecSpec, input string) (stdout, stderr string, status int) {
	h.t.Helper()
	spec.Stdin = spec.Stdin || input != ""
	s, err := h.Exec(h.t.Context(), id, spec)
	if err != nil {
		h.t.Fatal(err)
	}
	defer s.Close()
	if input != "" {
		if _, err := io.WriteString(s.Stdin, input); err != nil {
			h.t.Fatal(err)
		}
		s.Stdin.Close()
	}
	var out, errors bytes.Buffer
	if s.Stderr != nil {
		done := make(chan error)
		go func() {
			_, err := io.Copy(&errors, s.Stderr)
			done <- err
		}()
		defer func() { stderr = errors.String() }()
		defer func() { <-done }()
	}
	if _, err := io.Copy(&out, s.Stdout); err != nil {
		h.t.Fatal(err)
	}
	status, err = s.Wait(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return out.String(), "", status
}

func (h *testHost) shell(id, script string) string {
	h.t.Helper()
	out, stderr, status := h.run(id, ExecSpec{Args: []string{"sh", "-c", script}}, "")
	if status != 0 {
		h.t.Fatalf("%s: status %d, %s", script, status, stderr)
	}
	return strings.TrimSpace(out)
}

func (h *testHost) state(id string) State {
	h.t.Helper()
	info, err := h.Show(id)
	if errors.Is(err, ErrNotFound) {
		return ""
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return info.State
}

// await waits for an event.
func await(t testing.TB, events <-chan Event, what string, state State) Event {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("events ended before %s", what)
			}
			if e.What == what && e.State == state {
				return e
			}
		case <-limit:
			t.Fatalf("no event %s, %s", what, state)
		}
	}
}

func TestLife(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	if err := h.Create(ctx, "web", h.config()); err != nil {
		t.Fatal(err)
	}
	info, err := h.Show("web")
	if err != nil || info.State != Created || info.PID == 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	if err := h.Start(ctx, "web", nil); err != nil {
		t.Fatal(err)
	}
	if got := h.shell("web", "hostname; cat /proc/1/comm"); got != "web\ninit" {
		t.Errorf("inside: %q", got)
	}
	list := h.List()
	if len(list) != 1 || list[0].ID != "web" || list[0].State != Running || list[0].Processes == 0 || list[0].Runs != 1 {
		t.Errorf("list: %+v", list)
	}
	processes, err := h.Processes("web")
	if err != nil || len(processes) == 0 || processes[0].PID != 1 || processes[0].Command != "init" || processes[0].User != "root" {
		t.Errorf("ps: %+v, %v", processes, err)
	}
	if err := h.Start(ctx, "web", nil); !errors.Is(err, ErrState) || err.Error() != "start web: it is running" {
		t.Errorf("second start: %v", err)
	}
	if err := h.Stop(ctx, "web", 0); err != nil {
		t.Fatal(err)
	}
	status, err := h.Wait(ctx, "web")
	if err != nil || status.Reason != "stop" || h.state("web") != Dead {
		t.Errorf("after stop: %+v, %v, %s", status, err, h.state("web"))
	}
	if _, err := h.Exec(ctx, "web", ExecSpec{Args: []string{"true"}}); !errors.Is(err, ErrState) {
		t.Errorf("exec in a dead instance: %v", err)
	}
	if err := h.Start(ctx, "web", nil); err != nil {
		t.Fatal("start from the last configuration:", err)
	}
	if err := h.Restart(ctx, "web", 0); err != nil || h.state("web") != Running {
		t.Fatal(err)
	}
	if err := h.Remove(ctx, "web"); !errors.Is(err, ErrState) {
		t.Errorf("rm of a running instance: %v", err)
	}
	if err := h.Stop(ctx, "web", 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(ctx, "web"); err != nil || h.state("web") != "" {
		t.Errorf("rm: %v", err)
	}
	if err := h.Stop(ctx, "web", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("stop of nothing: %v", err)
	}
}

func TestFailedStart(t *testing.T) {
	h := newHost(t)
	for _, test := range []struct{ line, want string }{
		{"INIT=/sbin/missing", "start bad: init /sbin/missing: no such file or directory"},
		{"INIT=/etc/passwd", "start bad: init /etc/passwd: permission denied"},
		{"MOUNT_0='/missing /mnt'", "start bad: mount /mnt: stat /missing: no such file or directory"},
		{"MOUNT_0='" + h.root + "/etc /etc/passwd'", "start bad: mount " + h.root + "/etc on /etc/passwd: invalid argument"},
		{"FSROOT=/missing", "start bad: FSROOT: stat /missing: no such file or directory"},
		{"ROOT_MOUNT='echo no disk; exit 3'", "start bad: ROOT_MOUNT: exit status 3: no disk"},
		{"PRIV_ALLOW=FROBNICATE", "start bad: invalid: "},
		{"SYSCTL_net.missing=1", "start bad: open /proc/sys/net/missing: no such file or directory"},
	} {
		err := h.Start(t.Context(), "bad", h.config(test.line))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s:\n got %v\nwant %s", test.line, err, test.want)
		}
		if h.state("bad") != "" {
			t.Errorf("%s: the instance is left, %s", test.line, h.state("bad"))
		}
		if entries, _ := os.ReadDir(h.home.Run); len(entries) != 1 {
			t.Errorf("%s: run directory has %v", test.line, entries)
		}
		if names, err := h.tree.List(h.key); err != nil || len(names) != 0 {
			t.Errorf("%s: control groups %v, %v", test.line, names, err)
		}
	}
	if err := h.Start(t.Context(), "bad", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("start without a configuration: %v", err)
	}
}

func TestExec(t *testing.T) {
	h := newHost(t)
	h.start("web", "ENV=COLOUR=green")
	sh := func(script string) ExecSpec { return ExecSpec{Args: []string{"sh", "-c", script}} }
	for _, test := range []struct {
		name           string
		spec           ExecSpec
		input          string
		stdout, stderr string
		status         int
	}{
		{"status", sh("exit 7"), "", "", "", 7},
		{"signal", sh("kill -9 $$"), "", "", "", 137},
		{"streams", sh("echo out; echo err >&2"), "", "out\n", "err\n", 0},
		{"stdin", sh("tr a-z A-Z"), "hello", "HELLO", "", 0},
		{"no stdin", sh("wc -c"), "", "0\n", "", 0},
		{"reopen", sh("echo again > /dev/stdout"), "", "again\n", "", 0},
		{"user", ExecSpec{Args: []string{"sh", "-c", "id -u; id -g; pwd; echo x > /dev/stderr"}, User: "user"}, "", "1000\n1000\n/tmp\n", "x\n", 0},
		{"number", ExecSpec{Args: []string{"id", "-u"}, User: "77"}, "", "77\n", "", 0},
		{"environment", ExecSpec{Args: []string{"sh", "-c", "echo $COLOUR $SHAPE $HOME"}, Env: []string{"SHAPE=round"}}, "", "green round /root\n", "", 0},
		{"directory", ExecSpec{Args: []string{"pwd"}, Dir: "/usr"}, "", "/usr\n", "", 0},
		{"terminal", ExecSpec{Args: []string{"sh", "-c", "tty; stty size"}, TTY: true, Rows: 33, Cols: 77}, "", "/dev/pts/1\r\n33 77\r\n", "", 0},
	} {
		stdout, stderr, status := h.run("web", test.spec, test.input)
		if stdout != test.stdout || stderr != test.stderr || status != test.status {
			t.Errorf("%s: %q, %q, %d", test.name, stdout, stderr, status)
		}
	}
	for _, test := range []struct {
		spec   ExecSpec
		status int
		want   string
	}{
		{ExecSpec{Args: []string{"nonesuch"}}, 127, "nonesuch: no such file or directory"},
		{ExecSpec{Args: []string{"/etc/passwd"}}, 126, "/etc/passwd: permission denied"},
		{ExecSpec{Args: []string{"true"}, Dir: "/missing"}, 126, "true: change to directory /missing: no such file or directory"},
	} {
		_, err := h.Exec(t.Context(), "web", test.spec)
		var failed *ExecError
		if !errors.As(err, &failed) || failed.Status != test.status || !strings.HasSuffix(err.Error(), test.want) {
			t.Errorf("%v: %v", test.spec.Args, err)
		}
	}
	if _, err := h.Exec(t.Context(), "web", ExecSpec{Args: []string{"true"}, User: "nobody-knows"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown user: %v", err)
	}
}

func TestExecDetached(t *testing.T) {
	h := newHost(t)
	h.start("web")
	s, err := h.Exec(t.Context(), "web", ExecSpec{Args: []string{"sh", "-c", "readlink /proc/self/fd/0 > /tmp/fd0; exec sleep 1000"}, Detach: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(9); err != nil {
		t.Fatal(err)
	}
	if status, err := s.Wait(t.Context()); err != nil || status != 137 {
		t.Errorf("status %d, %v", status, err)
	}
	s.Close()
}

func TestRebootAndPoweroff(t *testing.T) {
	h := newHost(t)
	events := h.Events(t.Context())
	h.start("web")
	before, err := h.Show("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		command, what string
		state         State
	}{{"reboot", "reboot", Running}, {"poweroff", "poweroff", Dead}} {
		s, err := h.Exec(t.Context(), "web", ExecSpec{Args: []string{c.command, "-f"}, Detach: true})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		await(t, events, c.what, c.state)
	}
	after, err := h.Show("web")
	if err != nil || after.Runs != 2 || after.FirstUID != before.FirstUID || after.ExitStatus.Reason != "poweroff" {
		t.Errorf("%+v, %v", after, err)
	}
}

func TestRestartPolicy(t *testing.T) {
	h := newHost(t)
	events := h.Events(t.Context())
	h.start("web", initLine("echo run; exit 1"), "RESTART=on-failure:2")
	status, err := h.Wait(t.Context(), "web")
	if err != nil || status.Code != 1 || status.Reason != "exit" {
		t.Errorf("%+v, %v", status, err)
	}
	starts := 0
	for done := false; !done; {
		select {
		case e := <-events:
			if e.State == Running {
				starts++
			}
		default:
			done = true
		}
	}
	if starts != 3 {
		t.Errorf("%d starts", starts)
	}
	r, err := h.Logs(t.Context(), "web", LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if log, err := io.ReadAll(r); err != nil || string(log) != "run\r\nrun\r\nrun\r\n" {
		t.Errorf("log %q, %v", log, err)
	}
}

func TestConsole(t *testing.T) {
	h := newHost(t)
	h.start("web", "INIT=/bin/sh")
	one, err := h.Console(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if err := one.Resize(10, 20); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(one, "stty size; echo $((40+2))\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, one, "42\r\n")
	two, err := h.Console(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	if got := readUntil(t, two, "42\r\n"); !strings.Contains(got, "10 20\r\n") {
		t.Errorf("history for a second reader: %q", got)
	}
	if _, err := io.WriteString(two, "exit 5\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(one); err != nil {
		t.Errorf("end of console: %v", err)
	}
	if status, err := h.Wait(t.Context(), "web"); err != nil || status.Code != 5 {
		t.Errorf("%+v, %v", status, err)
	}
}

func readUntil(t *testing.T, r io.Reader, want string) string {
	t.Helper()
	var all []byte
	buf := make([]byte, 1000)
	for !strings.Contains(string(all), want) {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("%q, then %v", all, err)
		}
		all = append(all, buf[:n]...)
	}
	return string(all)
}

func TestSuspend(t *testing.T) {
	h := newHost(t)
	h.start("web", initLine("while :; do echo tick; sleep 0.01; done"))
	if err := h.Suspend(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	for verb, err := range map[string]error{
		"stop": h.Stop(t.Context(), "web", 0), "suspend": h.Suspend(t.Context(), "web"), "start": h.Start(t.Context(), "web", nil),
	} {
		if !errors.Is(err, ErrState) || err.Error() != verb+" web: it is suspended" {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if err := h.Resume(t.Context(), "web"); err != nil || h.state("web") != Running {
		t.Fatal(err)
	}
	if err := h.Suspend(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if err := h.Abort(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if status, err := h.Wait(t.Context(), "web"); err != nil || status.Reason != "abort" {
		t.Errorf("%+v, %v", status, err)
	}
}

func TestBusy(t *testing.T) {
	h := newHost(t)
	h.start("web", initLine("sleep 1000"))
	i, err := h.get("web")
	if err != nil {
		t.Fatal(err)
	}
	done, err := i.begin("snapshot", Running)
	if err != nil {
		t.Fatal(err)
	}
	err = h.Stop(t.Context(), "web", 0)
	done()
	if !errors.Is(err, ErrBusy) || err.Error() != "stop web: snapshot is under way" {
		t.Errorf("%v", err)
	}
}

func TestVolumes(t *testing.T) {
	h := newHost(t)
	data := filepath.Join(filepath.Dir(h.root), "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	h.start("web", "MOUNT_0='"+data+" /srv/data'", "MOUNT_1='"+data+" /srv/fixed ro'", "MOUNT_2='tmpfs /scratch size=1M'", "DNS=192.0.2.1", "RLIMIT_NOFILE=100:200",
		"SYSCTL_net.ipv4.ip_forward=1")
	for _, test := range []struct{ script, want string }{
		{"touch /srv/data/x && stat -c %u:%g /srv/data/x", "0:0"},
		{"touch /srv/fixed/y 2>/dev/null || echo refused", "refused"},
		{"mount -o remount,rw,bind /srv/fixed 2>/dev/null; touch /srv/fixed/y 2>&1 | grep -c Read-only", "1"},
		{"umount /srv/fixed 2>/dev/null; touch /srv/fixed/z; ls /srv/data", "x"},
		{"df -k /scratch | awk 'END {print $2}'", "1024"},
		{"cat /etc/resolv.conf", "nameserver 192.0.2.1"},
		{"ulimit -n", "100"},
		{"cat /proc/sys/net/ipv4/ip_forward", "1"},
	} {
		if got := h.shell("web", test.script); got != test.want {
			t.Errorf("%s: %q, want %q", test.script, got, test.want)
		}
	}
	info, err := os.Stat(filepath.Join(data, "x"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestDevices(t *testing.T) {
	h := newHost(t)
	rules := "[quiet]\nadd include default\nadd path full mode 0666 ro\nadd path random hide\n"
	if err := os.WriteFile(filepath.Join(h.home.Etc, "devfs.rules"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	// A node in a volume leads to a device that the ruleset does not show.
	data := filepath.Join(filepath.Dir(h.root), "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(data, "random"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 8))); err != nil {
		t.Fatal(err)
	}
	h.start("web", initLine("sleep 1000"), "DEVFS_RULESET=quiet", "MOUNT_0='"+data+" /srv/data'")
	check := func() {
		t.Helper()
		for _, test := range []struct{ script, want string }{
			{"stat -c %a /dev/full", "666"},
			{"head -c 1 /dev/full | wc -c", "1"},
			{"(: >/dev/full) 2>&1 | sed 's/.*: //'", "Operation not permitted"},
			{"echo x >/dev/null && echo written", "written"},
			{"head -c 1 /dev/urandom | wc -c", "1"},
			{"ls /dev/random 2>&1 | sed 's/.*: //'", "No such file or directory"},
			{"head -c 1 /srv/data/random 2>&1 | sed 's/.*: //'", "Operation not permitted"},
		} {
			if got := h.shell("web", test.script); got != test.want {
				t.Errorf("%s: %q, want %q", test.script, got, test.want)
			}
		}
	}
	check()
	snapshot := h.snapshotted("web", SnapshotOptions{Stop: true})
	if err := h.Restore(t.Context(), "web", bytes.NewReader(snapshot), RestoreOptions{Resume: true}, nil); err != nil {
		t.Fatal(err)
	}
	check()
}

func TestLimits(t *testing.T) {
	h := newHost(t)
	h.start("web", "LIMITS=procs:0:20,phys:0:64M")
	out, _, _ := h.run("web", ExecSpec{Args: []string{"sh", "-c", "i=0; while [ $i -lt 40 ]; do sleep 100 >/dev/null 2>&1 & i=$((i+1)); done 2>&1; echo"}}, "")
	if !strings.Contains(out, "fork") {
		t.Errorf("40 processes were made: %q", out)
	}
	args, err := h.Args("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range args.Resources {
		if r.Name == "procs" && (r.Hard != 20 || r.HardHits == 0 || r.Flag != "X") {
			t.Errorf("%+v", r)
		}
	}
}

func TestShowHost(t *testing.T) {
	h := newHost(t)
	info, err := h.Show("vps0")
	if err != nil || info.State != Running || info.Processes == 0 || info.MemoryBytes == 0 || info.CPUNanos == 0 || info.FSRoot != "/" {
		t.Errorf("%+v, %v", info, err)
	}
	args, err := h.Args("vps0")
	if err != nil || len(args.Networks) != 2 || len(args.Deny) != 0 {
		t.Errorf("%+v, %v", args, err)
	}
}

func TestSecondDaemon(t *testing.T) {
	h := newHost(t)
	if _, err := Open(t.Context(), Options{Home: h.dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second daemon on one home: %v", err)
	}
}

func BenchmarkStart(b *testing.B) {
	h := newHost(b)
	cfg := h.config(initLine("sleep 1000"))
	for b.Loop() {
		if err := h.Start(b.Context(), "web", cfg); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := h.Stop(b.Context(), "web", 0); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkExecTrue(b *testing.B) {
	h := newHost(b)
	h.start("web")
	for b.Loop() {
		s, err := h.Exec(b.Context(), "web", ExecSpec{Args: []string{"/bin/true"}})
		if err != nil {
			b.Fatal(err)
		}
		if status, err := s.Wait(b.Context()); err != nil || status != 0 {
			b.Fatal(status, err)
		}
		s.Close()
	}
}

func TestAutostart(t *testing.T) {
	h := newHost(t)
	for id, lines := range map[string][]string{
		"last":  {"AUTOSTART=yes", "START_ORDER=2"},
		"first": {"AUTOSTART=yes", "START_ORDER=1", "HOST_SHUTDOWN=suspend"},
		"never": nil,
		"bad":   {"AUTOSTART=yes", "FSROOT=/missing"},
	} {
		text := h.config(append(lines, initLine("sleep 1000"))...).Text()
		if err := os.WriteFile(h.home.Config(id), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	events := h.Events(t.Context())
	if err := h.Autostart(t.Context()); err == nil || !strings.Contains(err.Error(), "start bad: FSROOT") {
		t.Errorf("autostart: %v", err)
	}
	if first, last := await(t, events, "start", Running), await(t, events, "start", Running); first.ID != "first" || last.ID != "last" {
		t.Errorf("started %s, then %s", first.ID, last.ID)
	}
	if h.state("never") != "" {
		t.Error("one that is not to be started was")
	}
	if err := h.Autostart(t.Context()); err == nil || strings.Contains(err.Error(), "it is running") {
		t.Errorf("second autostart: %v", err)
	}
	if err := h.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.state("first") != Dead || h.state("last") != Dead {
		t.Errorf("after shutdown: %s, %s", h.state("first"), h.state("last"))
	}
}
