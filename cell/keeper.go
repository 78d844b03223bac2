package cell

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vps/cell/reaper"
	"vps/remote"
)

// spawn makes the keeper: its threads, its user namespace, and those of pids and time that its children are born into.
func (c *Cell) spawn(ctx context.Context, spec Spec) error {
	if err := c.prepareRun(); err != nil {
		return err
	}
	if err := c.spawnStub(spec); err != nil {
		return err
	}
	ignored, err := ignoredSignals(c.Keeper.PID)
	if err != nil {
		return err
	}
	err = c.Keeper.run(ctx, func(b *remote.Batch) {
		// Nothing but SIGKILL reaches it, not even SIGXFSZ when the history has its limit's size.
		b.Call("block signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, b.Words(^uint64(0)), 0, 8)
		for _, sig := range ignored {
			b.Call("default signal", unix.SYS_RT_SIGACTION, sig, b.Words(0, 0, 0, 0), 0, 8)
		}
		b.Call("chdir "+c.run, unix.SYS_CHDIR, b.String(c.run))
		// The program was executed in our user namespace, so that, once undumpable, neither the keeper nor a
		// stub that it gives birth to can be traced from inside (ptrace(2), access mode checking).
		b.Call("prctl", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
		if spec.UserNS != nil {
			b.Call("new user namespace", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
		}
	})
	if err != nil {
		return err
	}
	if spec.UserNS != nil {
		if err := c.mapIDs(ctx, spec.UserNS); err != nil {
			return err
		}
	}
	err = c.Keeper.run(ctx, func(b *remote.Batch) {
		const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
		for _, slot := range []int{slotReaper, slotCopier, slotFault} {
			b.Clone("keeper's thread", remote.CloneArgs{Slot: c.Arena.Page(slot), Flags: thread})
		}
		b.Call("prctl", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
		b.Call("new pid and time namespaces", unix.SYS_UNSHARE, unix.CLONE_NEWPID|unix.CLONE_NEWTIME)
	})
	if err != nil {
		return err
	}
	return c.setClocks(spec.Monotonic, spec.Boottime)
}

// prepareRun makes the run directory's content. The keeper, without rights on the host, enters it.
func (c *Cell) prepareRun() error {
	if err := os.Chmod(c.run, 0o711); err != nil {
		return err
	}
	if err := Clean(c.run); err != nil {
		return err
	}
	// The statuses are an earlier cell's; its console's history goes on.
	if err := os.Remove(filepath.Join(c.run, StatusFile)); err != nil && !os.IsNotExist(err) {
		return err
	}
	for dir, mode := range map[string]os.FileMode{rootDir: 0o755, volumesDir: 0o711} {
		if err := os.Mkdir(filepath.Join(c.run, dir), mode); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

func (c *Cell) spawnStub(spec Spec) error {
	slots := max(spec.Slots, DefaultSlots)
	arena, err := remote.NewArena(c.base, slots, c.slotSize)
	if err != nil {
		return err
	}
	c.Arena = arena
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	c.Socket = os.NewFile(uintptr(pair[0]), "cell socket")
	theirs := os.NewFile(uintptr(pair[1]), "keeper socket")
	defer theirs.Close()
	files := []*os.File{theirs, c.Socket}
	for _, name := range []string{StatusFile, HistoryFile} {
		f, err := os.OpenFile(filepath.Join(c.run, name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	group, err := c.group.Keeper()
	if err != nil {
		return err
	}
	defer group.Close()
	c.Keeper.Page = arena.Page(slotKeeper)
	c.Keeper.PID, c.Keeper.PidFD, err = remote.Spawn(arena, slotKeeper, remote.SpawnOptions{Files: files, Group: group})
	if err != nil {
		return err
	}
	c.ours = true
	c.statuses, err = reaper.Open(filepath.Join(c.run, StatusFile), c.Keeper.PidFD)
	return err
}

// mapIDs writes the maps of the keeper's user namespace, user_namespaces(7), and makes it root there.
func (c *Cell) mapIDs(ctx context.Context, maps []remote.IDMap) error {
	var text strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&text, "%d %d %d\n", m.Inside, m.Host, m.Size)
	}
	for _, file := range []string{"uid_map", "gid_map"} {
		if err := c.writeKeeper(file, text.String()); err != nil {
			return err
		}
	}
	return c.Keeper.run(ctx, func(b *remote.Batch) {
		b.Call("setgroups", unix.SYS_SETGROUPS, 0, 0)
		b.Call("setresgid", unix.SYS_SETRESGID, 0, 0, 0)
		b.Call("setresuid", unix.SYS_SETRESUID, 0, 0, 0)
	})
}

// setClocks writes the offsets of the time namespace that the keeper's children are born into, time_namespaces(7).
func (c *Cell) setClocks(monotonic, boottime time.Duration) error {
	var text strings.Builder
	for _, clock := range []struct {
		name string
		id   int32
		want time.Duration
	}{{"monotonic", unix.CLOCK_MONOTONIC, monotonic}, {"boottime", unix.CLOCK_BOOTTIME, boottime}} {
		var now unix.Timespec
		if err := unix.ClockGettime(clock.id, &now); err != nil {
			return fmt.Errorf("clock_gettime %s: %w", clock.name, err)
		}
		offset := int64(clock.want) - now.Nano()
		sec, nsec := offset/1e9, offset%1e9
		if nsec < 0 {
			sec, nsec = sec-1, nsec+1e9
		}
		fmt.Fprintf(&text, "%s %d %d\n", clock.name, sec, nsec)
	}
	return c.writeKeeper("timens_offsets", text.String())
}

func (c *Cell) writeKeeper(file, text string) error {
	return os.WriteFile(filepath.Join("/proc", strconv.Itoa(c.Keeper.PID), file), []byte(text), 0)
}

// ignoredSignals reads which signals a process ignores, as it inherited from whoever started us: execve(2) would keep
// that for init.
func ignoredSignals(pid int) ([]int, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []int
	for s := bufio.NewScanner(f); s.Scan(); {
		text, ok := strings.CutPrefix(s.Text(), "SigIgn:")
		if !ok {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: SigIgn: %w", f.Name(), err)
		}
		for sig := 1; sig <= 64; sig++ {
			if mask&(1<<(sig-1)) != 0 {
				all = append(all, sig)
			}
		}
	}
	return all, nil
}
