package inside

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vps/cell"
	"vps/config"
	"vps/remote"
)

// sigRTMIN is the first real-time signal that glibc leaves to programs, signal(7).
const sigRTMIN = 34

// powerOffSignals are the signals on which an init, known by its program's name, powers off:
// systemd(1) SIGNALS; busybox init/init.c; init(8) of sysvinit and openrc-init(8) run what is configured for a power failure;
// s6-linux-init; runit(8).
var powerOffSignals = map[string]syscall.Signal{
	"systemd":       sigRTMIN + 3,
	"busybox":       unix.SIGUSR2,
	"init":          unix.SIGPWR,
	"openrc-init":   unix.SIGPWR,
	"s6-svscan":     unix.SIGUSR2,
	"s6-linux-init": unix.SIGUSR2,
	"runit":         unix.SIGCONT,
}

// PowerOff asks an init to end its system, by the given signal or, with 0, the one that this init knows for it, and waits until it
// has ended, for as long as timeout. A signal that init does not wait for would only be lost, and is not sent.
func PowerOff(ctx context.Context, init *cell.Process, sig syscall.Signal, timeout time.Duration) (ended bool, err error) {
	if sig == 0 {
		sig = powerOffSignal(init.PID)
	}
	if !expects(init.PID, sig) {
		return false, nil
	}
	if err := init.Signal(sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return false, fmt.Errorf("signal %s to init: %w", config.SignalName(sig), err)
	}
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case <-init.Done():
		return true, nil
	case <-limit.Done():
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, nil
	}
}

// powerOffSignal is that of the program that the process runs, SIGTERM for one that is not known.
func powerOffSignal(pid int) syscall.Signal {
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	if err != nil {
		return unix.SIGTERM
	}
	name := filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
	if name == "busybox" && !isInit(pid) {
		return unix.SIGTERM
	}
	if sig, ok := powerOffSignals[name]; ok {
		return sig
	}
	return unix.SIGTERM
}

// isInit tells busybox' init from its other programs.
func isInit(pid int) bool {
	comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	name := strings.TrimSpace(string(comm))
	return err == nil && (name == "init" || name == "linuxrc")
}

// expects tells whether a process handles a signal, or has it blocked, as who takes signals by signalfd(2) does. The kernel
// drops all others that are sent to a pid 1.
func expects(pid int, sig syscall.Signal) bool {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		if name != "SigCgt" && name != "SigBlk" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && mask&(1<<(sig-1)) != 0 {
			return true
		}
	}
	return awaits(pid, sig)
}

// awaits tells whether the main thread of a process waits for a signal in sigtimedwait(2): meanwhile the kernel does
// not show as blocked what it waits for (proc_pid_syscall(5)).
func awaits(pid int, sig syscall.Signal) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "syscall"))
	if err != nil {
		return false
	}
	var nr int
	var set uint64
	if n, _ := fmt.Sscanf(string(text), "%d %v", &nr, &set); n != 2 || nr != unix.SYS_RT_SIGTIMEDWAIT {
		return false
	}
	var mask [8]byte
	if err := remote.ReadMemory(pid, set, mask[:]); err != nil {
		return false
	}
	return binary.LittleEndian.Uint64(mask[:])&(1<<(sig-1)) != 0
}
