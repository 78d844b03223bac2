package instance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/instance/registry"
)

// reboot lets the host go down and come up again: processes, control groups and the run directory are gone.
func (h *testHost) reboot() {
	h.t.Helper()
	if err := h.Shutdown(h.t.Context()); err != nil {
		h.t.Error(err)
	}
	h.powerLoss()
}

// powerLoss is a reboot for which there was no time to prepare.
func (h *testHost) powerLoss() {
	h.t.Helper()
	for _, info := range h.List() {
		i, err := h.get(info.ID)
		if err != nil {
			h.t.Fatal(err)
		}
		if i.group == nil {
			continue
		}
		h.Close()
		// First the keeper, so that it writes nothing down.
		if i.cell != nil {
			if err := unix.Kill(i.cell.Keeper.PID, unix.SIGKILL); err != nil {
				h.t.Fatal(err)
			}
		}
		if err := errors.Join(i.group.KillAll(), i.group.Remove(h.t.Context())); err != nil {
			h.t.Fatal(err)
		}
	}
	h.Close()
	if err := os.RemoveAll(h.home.Run); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

func (h *testHost) stored() int {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.home.State, "snapshots", "*.vps"))
	if err != nil {
		h.t.Fatal(err)
	}
	return len(files)
}

func TestShutdownAndBoot(t *testing.T) {
	for _, test := range []struct {
		policy  string
		suspend bool
		files   int // that are kept
	}{
		{"suspend", false, 0},
		{"snapshot", false, 1},
		{"snapshot", true, 1},
		{"stop", true, 0},
	} {
		t.Run(fmt.Sprint(test.policy, test.suspend), func(t *testing.T) {
			h := newHost(t)
			h.start("web", ticking, "HOST_SHUTDOWN="+test.policy)
			h.ticks()
			if test.suspend {
				if err := h.Suspend(t.Context(), "web"); err != nil {
					t.Fatal(err)
				}
			}
			h.reboot()
			info, err := h.Show("web")
			if err != nil || info.State != Dead || info.ExitStatus.Reason != "saved" || info.Saved == "" {
				t.Fatalf("%+v, %v", info, err)
			}
			at := h.count()
			err = h.Start(t.Context(), "web", nil)
			if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), info.Saved) || !strings.Contains(err.Error(), "vpsctl restore") {
				t.Errorf("start over what was saved: %v", err)
			}
			if err := h.Boot(t.Context()); err != nil {
				t.Fatal(err)
			}
			if test.suspend {
				h.stands("web")
				if err := h.Resume(t.Context(), "web"); err != nil {
					t.Fatal(err)
				}
			}
			h.ticks()
			if now := h.count(); now < at || now > at+1000 {
				t.Errorf("it counted to %d, and then to %d", at, now)
			}
			if n := h.stored(); n != test.files {
				t.Errorf("%d files are left", n)
			}
			if info, err := h.Show("web"); err != nil || info.Saved != "" || info.Runs != 1 || info.Restores != 1 {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

// What was saved and cannot be restored is not started anew, and how to go on is said.
func TestBootCannotRestore(t *testing.T) {
	h := newHost(t)
	lines := []string{"AUTOSTART=yes", "HOST_SHUTDOWN=suspend", initLine("sleep 1000")}
	if err := os.WriteFile(h.home.Config("web"), []byte(h.config(lines...).Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.reboot()
	file := func() string {
		info, err := h.Show("web")
		if err != nil || info.Saved == "" {
			t.Fatalf("%+v, %v", info, err)
		}
		return info.Saved
	}()
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	events := h.Events(t.Context())
	err = h.Boot(t.Context())
	if err == nil || !strings.Contains(err.Error(), "autostart web: ") || !strings.Contains(err.Error(), "'vpsctl restore --resume web "+file+"'") {
		t.Errorf("%v", err)
	}
	await(t, events, "restore-failed", Dead)
	if h.state("web") != Dead {
		t.Errorf("it is %s", h.state("web"))
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	// Once a boot: that is done.
	if err := h.Boot(t.Context()); err != nil || h.state("web") != Dead {
		t.Errorf("%v, %s", err, h.state("web"))
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := h.Restore(t.Context(), "web", f, RestoreOptions{Resume: true}, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := h.Show("web"); err != nil || info.State != Running || info.Saved != "" {
		t.Errorf("%+v, %v", info, err)
	}
}

// Without a shutdown nothing was saved, and nothing pretends that it was.
func TestPowerLoss(t *testing.T) {
	h := newHost(t)
	h.start("web", initLine("sleep 1000"), "HOST_SHUTDOWN=suspend")
	i, err := h.get("web")
	if err != nil {
		t.Fatal(err)
	}
	// The host dies in the middle of saving.
	if err := i.note(&registry.Saved{File: filepath.Join(h.home.State, "none.vps"), Resume: true}); err != nil {
		t.Fatal(err)
	}
	h.powerLoss()
	info, err := h.Show("web")
	if err != nil || info.State != Dead || info.ExitStatus.Reason != "lost" || info.Saved != "" {
		t.Errorf("%+v, %v", info, err)
	}
	if err := h.Start(t.Context(), "web", nil); err != nil {
		t.Error(err)
	}
}

// A daemon that dies while it saves leaves the instance as it was.
func TestDaemonKilledInSave(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking)
	i, err := h.get("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.note(&registry.Saved{File: filepath.Join(h.home.State, "none.vps"), Resume: true}); err != nil {
		t.Fatal(err)
	}
	h.killed("snapshot@20000 web -")
	h.open()
	h.ticks()
	if info, err := h.Show("web"); err != nil || info.State != Running || info.Saved != "" {
		t.Errorf("%+v, %v", info, err)
	}
}

// A save that fails leaves the instance running, to be stopped.
func TestSaveFails(t *testing.T) {
	h := newHost(t)
	h.start("web", ticking, "HOST_SHUTDOWN=snapshot")
	h.ticks()
	if err := os.WriteFile(filepath.Join(h.home.State, "snapshots"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := h.Shutdown(t.Context())
	if err == nil || !strings.Contains(err.Error(), "save web: ") {
		t.Errorf("%v", err)
	}
	info, err := h.Show("web")
	if err != nil || info.State != Dead || info.ExitStatus.Reason != "stop" || info.Saved != "" {
		t.Errorf("%+v, %v", info, err)
	}
	if err := h.Start(t.Context(), "web", nil); err != nil {
		t.Error(err)
	}
}
