package api_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vps/api"
	"vps/api/apitest"
	"vps/instance"
	"vps/instance/home"
)

// serve answers for host at a new home, until the test ends, and gives a client.
func serve(t *testing.T, host *apitest.Host) (*api.Client, home.Home) {
	t.Helper()
	// As long as a path may be that a socket's address has no room for.
	at, err := home.At(filepath.Join(t.TempDir(), strings.Repeat("d", 150)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := api.Listen(at.Run)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	server := &api.Server{Host: host, Version: "v1", Log: slog.New(slog.DiscardHandler)}
	go func() { served <- server.Serve(ctx, l) }()
	c := api.Dial(at, "v1")
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return c, at
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsShownArrivesWhole(t *testing.T) {
	host := apitest.New("db", "web")
	c, _ := serve(t, host)
	list, err := c.List(t.Context())
	must(t, err)
	if d := cmp.Diff(host.List(), list); d != "" {
		t.Errorf("list: %s", d)
	}
	must(t, host.Suspend(t.Context(), "db"))
	must(t, host.Abort(t.Context(), "db"))
	got, err := c.Show(t.Context(), "db")
	must(t, err)
	want, _ := host.Show("db")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("show: %s", d)
	}
	args, err := c.Args(t.Context(), "web")
	must(t, err)
	wantArgs, _ := host.Args("web")
	if d := cmp.Diff(wantArgs.Resources, args.Resources); d != "" {
		t.Errorf("args: %s", d)
	}
	ps, err := c.Processes(t.Context(), "web")
	must(t, err)
	wantPS, _ := host.Processes("web")
	wantPS[1].Command = "evil \x1b[2J\uFFFD"
	if d := cmp.Diff(wantPS, ps); d != "" {
		t.Errorf("processes: %s", d)
	}
	check, err := c.Check(t.Context(), "web")
	must(t, err)
	if wantCheck, _ := host.Check(t.Context(), "web"); !cmp.Equal(wantCheck.Frozen, check.Frozen) || !check.OK {
		t.Errorf("check: %+v", check)
	}
}

func TestErrorsKeepClassAndText(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	_, notFound := c.Show(t.Context(), "nix")
	_, exec := c.Exec(t.Context(), "web", instance.ExecSpec{Args: []string{"/nonexistent"}})
	for name, test := range map[string]struct {
		err, class error
		text       string
	}{
		"not found": {notFound, instance.ErrNotFound, "nix: no such instance"},
		"state":     {c.Resume(t.Context(), "web"), instance.ErrState, "resume web: it is running"},
		"start":     {c.Start(t.Context(), "web", nil), instance.ErrState, "start web: it is running"},
		"exec":      {exec, nil, "/nonexistent: no such file or directory"},
	} {
		if test.err == nil || test.err.Error() != test.text || test.class != nil && !errors.Is(test.err, test.class) {
			t.Errorf("%s: %v (%T), want %q of class %v", name, test.err, test.err, test.text, test.class)
		}
	}
	if e, ok := errors.AsType[*instance.ExecError](exec); !ok || e.Status != 127 {
		t.Errorf("exec of what is not there: %#v, want status 127", exec)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	_, at := serve(t, apitest.New())
	if _, err := api.Listen(at.Run); !errors.Is(err, api.ErrRunning) {
		t.Errorf("listen again: %v, want %v", err, api.ErrRunning)
	}
	if info, err := os.Stat(filepath.Join(at.Run, "vpsd.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", info, err)
	}
}

func TestSocketOfADeadDaemonIsReplaced(t *testing.T) {
	at, err := home.At(t.TempDir())
	must(t, err)
	must(t, os.MkdirAll(at.Run, 0o700))
	must(t, os.WriteFile(filepath.Join(at.Run, "vpsd.sock"), nil, 0o600))
	l, err := api.Listen(at.Run)
	must(t, err)
	must(t, l.Close())
	if _, err := os.Stat(filepath.Join(at.Run, "vpsd.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after close: %v", err)
	}
}

func TestMismatchIsTold(t *testing.T) {
	_, at := serve(t, apitest.New())
	c := api.Dial(at, "v2")
	defer c.Close()
	_, err := c.List(t.Context())
	must(t, err)
	if got := c.Mismatch(); got != "v1" {
		t.Errorf("mismatch %q, want v1", got)
	}
}

func TestEvents(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	ready := make(chan struct{})
	events := make(chan instance.Event)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- c.Events(ctx, func() { close(ready) }, func(e instance.Event) error { events <- e; return nil })
	}()
	<-ready
	must(t, c.Suspend(t.Context(), "web"))
	if e := <-events; e.ID != "web" || e.State != instance.Suspended || e.What != "suspend" || !e.Time.Equal(apitest.Time) {
		t.Errorf("event %+v", e)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("events after cancel: %v", err)
	}
}

func TestWaitEndsWithTheInstance(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	status := make(chan instance.ExitStatus)
	go func() {
		s, err := c.Wait(t.Context(), "web")
		if err != nil {
			t.Error(err)
		}
		status <- s
	}()
	must(t, c.Kill(t.Context(), "web", 9))
	if s := <-status; s.Code != 137 || s.Signal != "SIGKILL" || !s.Time.Equal(apitest.Time) {
		t.Errorf("status %+v", s)
	}
}

func TestConsole(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	one, err := c.Console(t.Context(), "web")
	must(t, err)
	two, err := c.Console(t.Context(), "web")
	must(t, err)
	defer two.Close()
	_, err = one.Write([]byte("root\r"))
	must(t, err)
	const want = "login: root\r\n"
	for name, reader := range map[string]*api.Console{"one": one, "two": two} {
		b := make([]byte, len(want))
		if _, err := io.ReadFull(reader, b); err != nil || string(b) != want {
			t.Errorf("%s reads %q, %v", name, b, err)
		}
	}
	must(t, one.Close())
	must(t, c.Stop(t.Context(), "web", time.Second))
	if _, err := two.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read of the console of a stopped instance: %v", err)
	}
}

func TestConsoleEndsWithItsContext(t *testing.T) {
	c, _ := serve(t, apitest.New("web"))
	ctx, cancel := context.WithCancel(t.Context())
	console, err := c.Console(ctx, "web")
	must(t, err)
	defer console.Close()
	_, err = io.ReadFull(console, make([]byte, len("login: ")))
	must(t, err)
	read := make(chan error)
	go func() {
		_, err := console.Read(make([]byte, 1))
		read <- err
	}()
	cancel()
	if err := <-read; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
