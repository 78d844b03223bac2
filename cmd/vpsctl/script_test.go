package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"vps/api"
	"vps/api/apitest"
	"vps/cmd/vpsctl/cli"
	"vps/cmd/vpsctl/daemon"
	"vps/instance/home"
	"vps/internal/leak"
)

// TestMain runs the tests, and those runs of this program that are vpsctl or the daemon.
func TestMain(m *testing.M) {
	programs := map[string]func(){
		"vpsctl":   main,
		api.Daemon: func() { os.Exit(testDaemon()) },
	}
	if programs[filepath.Base(os.Args[0])] == nil && os.Geteuid() == 0 && os.Getenv("VPS_LEAK_SUPERVISED") == "" {
		leak.Main(m) // it runs this program again
	}
	testscript.Main(m, programs)
}

// testDaemon is what vpsctl starts in these tests.
func testDaemon() int {
	if filepath.Base(os.Getenv("VPS_HOME")) == realHome {
		return daemonMain(os.Args[1:])
	}
	return fakeDaemon()
}

// fakeDaemon is vpsd with a host of apitest.
func fakeDaemon() int {
	var ready *os.File
	launched := flag.Bool("launched", false, "")
	flag.Parse()
	if *launched {
		ready = os.NewFile(api.ReadyFD, "ready")
	}
	at, err := home.At(os.Getenv("VPS_HOME"))
	if err == nil && filepath.Base(at.Dir) == "broken" {
		err = errors.New("the fake daemon does not like this home")
		if ready != nil {
			fmt.Fprint(ready, err)
		}
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		version = "devel"
		host := apitest.New("blocked", "db", "web")
		if filepath.Base(at.Dir) == "held" {
			host.Hold()
		}
		err = daemon.Serve(ctx, at, host, version, slog.New(slog.NewTextHandler(os.Stderr, nil)), ready)
	}
	if err != nil {
		return 1
	}
	return 0
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("VPS_HOME", home)
			env.Setenv("TZ", "UTC")
			env.Defer(func() { stopDaemons(t, env.WorkDir) })
			return nil
		},
		Cmds: commands(),
	})
}

// commands are those that scripts have besides testscript's own.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){"status": cmdStatus, "await": cmdAwait}
}

// stopDaemons ends the daemons of the homes below dir, and waits for their end.
func stopDaemons(t *testing.T, dir string) {
	sockets, err := filepath.Glob(filepath.Join(dir, "*", "run", "vpsd.sock"))
	if err != nil {
		t.Error(err)
	}
	for _, s := range sockets {
		at, err := home.At(filepath.Dir(filepath.Dir(s)))
		if err != nil {
			t.Error(err)
			continue
		}
		c := api.Dial(at, version)
		c.Passive = true
		_, pid, err := c.Version(context.Background())
		c.Close()
		if err != nil {
			continue // it is dead already
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); err != nil {
			t.Error(err)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10_000)
		for err == unix.EINTR { // a signal of the Go runtime's
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10_000)
		}
		if n != 1 {
			t.Errorf("the daemon %d of %s does not end: %v", pid, at.Dir, err)
		}
		unix.Close(pidfd)
	}
}

// cmdStatus runs a command and wants an exit status: status N COMMAND...
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command...")
	}
	err := ts.Exec(args[1], args[2:]...)
	status := 0
	if e, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		status = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(status) != args[0] {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

// cmdAwait waits until a file is there.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := os.Stat(ts.MkAbs(args[0]))
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s: %v", args[0], err)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestEveryVerbExplainsItself: help has a sentence, a paragraph and an example.
func TestEveryVerbExplainsItself(t *testing.T) {
	a := &app{IO: cli.IO{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}}
	var verbs []string
	for _, cmd := range a.root().Commands() {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		verbs = append(verbs, cmd.Name())
		if cmd.Short == "" || cmd.Long == "" || !cmd.HasSubCommands() && cmd.Example == "" {
			t.Errorf("%s: needs a sentence, a paragraph and an example", cmd.Name())
		}
	}
	for _, want := range []string{
		"start", "stop", "restart", "list", "show", "ps", "kill", "wait", "rm", "events", "logs", "exec", "execin", "execwt",
		"shell", "console", "suspend", "resume", "abort", "snapshot", "snapshots", "restore", "showdump", "argshow", "check", "config", "version",
	} {
		if !slices.Contains(verbs, want) {
			t.Errorf("there is no verb %s", want)
		}
	}
}
