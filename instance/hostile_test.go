package instance

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An instance may turn its own files into traps.
func TestHostileFiles(t *testing.T) {
	h := newHost(t)
	h.start("web")
	for _, trap := range []string{
		"rm /etc/passwd; mkfifo /etc/passwd",
		"rm /etc/passwd; ln -s /proc/self/mem /etc/passwd",
		"rm /etc/passwd; ln -s /dev/console /etc/passwd",
		"rm /etc/passwd; yes >/etc/passwd & sleep 0.2; kill $!",
	} {
		h.shell("web", trap)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		s, err := h.Exec(ctx, "web", ExecSpec{Args: []string{"true"}, User: "user"})
		if err == nil {
			t.Errorf("%s: user was found", trap)
			s.Close()
		} else if ctx.Err() != nil {
			t.Errorf("%s: held us up", trap)
		}
		cancel()
	}
	outside := filepath.Join(filepath.Dir(h.root), "passwd")
	if err := os.WriteFile(outside, []byte("evil:x:7:7::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.shell("web", "rm -f /etc/passwd; ln -s /../../.."+outside+" /etc/passwd")
	if s, err := h.Exec(t.Context(), "web", ExecSpec{Args: []string{"true"}, User: "evil"}); err == nil {
		s.Close()
		t.Error("a file outside of the root was read")
	}
}

func TestHostileTerminal(t *testing.T) {
	h := newHost(t)
	h.start("web")
	h.shell("web", "mkfifo /tmp/fifo; touch /tmp/file; mv /dev/ptmx /dev/old")
	for _, target := range []string{"/tmp/fifo", "/tmp/file", "/dev/zero", "/missing"} {
		h.shell("web", "ln -sf "+target+" /dev/ptmx")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		s, err := h.Exec(ctx, "web", ExecSpec{Args: []string{"true"}, TTY: true})
		if err == nil {
			s.Close()
			t.Errorf("%s was taken for a terminal", target)
		} else if ctx.Err() != nil {
			t.Errorf("%s held us up", target)
		}
		cancel()
	}
	if got := h.shell("web", "echo still here"); got != "still here" {
		t.Error(got)
	}
}

// The keeper sees the host's files, and so does every child of it until it has entered the instance: nobody inside may
// look into them.
func TestStubsCannotBeTraced(t *testing.T) {
	h := newHost(t)
	h.start("web")
	i, err := h.get("web")
	if err != nil {
		t.Fatal(err)
	}
	keeper := strconv.Itoa(i.cell.Keeper.PID)
	var mine unix.Stat_t
	if err := unix.Stat("/proc/"+keeper+"/maps", &mine); err != nil {
		t.Fatal(err)
	}
	if mine.Uid != 0 {
		t.Errorf("the keeper's files in /proc belong to %d: it can be traced by that user's processes", mine.Uid)
	}
	if got := h.shell("web", "ls /proc | grep -c '^"+keeper+"$' || true"); got != "0" {
		t.Errorf("the keeper is seen from inside")
	}
}

func TestNoNamespace(t *testing.T) {
	h := newHost(t)
	h.start("web", "USERNS=host")
	for script, want := range map[string]string{
		"id -u":                              "0",
		"cat /proc/self/uid_map | tr -s ' '": " 0 0 4294967295",
		"echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo refused":     "refused",
		"mknod /tmp/sda b 8 0 2>/dev/null && head -c 1 /tmp/sda; echo no": "no",
		"hostname": "web",
		"mount -t tmpfs none /mnt 2>/dev/null && umount /mnt; umount /proc/keys 2>/dev/null; wc -c </proc/keys": "0",
	} {
		if got := h.shell("web", script); got != strings.TrimSpace(want) {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

func TestManyExecs(t *testing.T) {
	h := newHost(t)
	h.start("web")
	const many = 40
	errs := make(chan error, many)
	for n := range many {
		go func() {
			s, err := h.Exec(t.Context(), "web", ExecSpec{Args: []string{"sh", "-c", "exit " + strconv.Itoa(n)}})
			if err != nil {
				errs <- err
				return
			}
			defer s.Close()
			status, err := s.Wait(t.Context())
			if err == nil && status != n {
				err = errors.New("status " + strconv.Itoa(status) + " is not " + strconv.Itoa(n))
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// An instance that ends in the middle of an exec must not take the daemon with it.
func TestExecWhileEnding(t *testing.T) {
	h := newHost(t)
	for range 5 {
		h.start("web", initLine("sleep 1000"))
		ended := make(chan struct{})
		for range 4 {
			go func() {
				for {
					s, err := h.Exec(t.Context(), "web", ExecSpec{Args: []string{"true"}})
					if err != nil {
						ended <- struct{}{}
						return
					}
					s.Close()
				}
			}()
		}
		time.Sleep(20 * time.Millisecond)
		if err := h.Stop(t.Context(), "web", 0); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			<-ended
		}
		if err := h.Remove(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
	}
}
