package cell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/account"
	"vps/cell/reaper"
	"vps/remote"
)

// State is what a new daemon must know to take a cell over.
type State struct {
	Keeper      int    `json:"keeper"` // pids on the host, with their start times in clock ticks since boot
	KeeperStart uint64 `json:"keeper_start"`
	Init        int    `json:"init"`
	InitStart   uint64 `json:"init_start"`
	Run         string `json:"run"`
	ArenaBase   uint64 `json:"arena_base"`
	SlotSize    int    `json:"slot_size"`
	Console     bool   `json:"console"`
	FirstUID    int    `json:"first_uid"`
}

// ErrGone says that nothing is left of a cell but, perhaps, the exit status of its init.
var ErrGone = errors.New("the keeper is gone")

// State describes the cell.
func (c *Cell) State() State { return c.state }

func (c *Cell) describe() error {
	c.state = State{Keeper: c.Keeper.PID, Init: c.Init.PID, Run: c.run, ArenaBase: c.base, SlotSize: c.slotSize,
		Console: c.Console != nil, FirstUID: c.firstUID}
	var err error
	if c.state.KeeperStart, err = startTime(c.Keeper.PID); err != nil {
		return err
	}
	c.state.InitStart, err = startTime(c.Init.PID)
	return err
}

// startTime is field 22 of /proc/PID/stat, which with the pid names a process for as long as the host runs.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const field = 22 - 3 // after pid and comm
	if len(fields) <= field {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	return strconv.ParseUint(fields[field], 10, 64)
}

// openProcess opens a process that is the one that was meant. ErrGone if it is not.
func openProcess(pid int, start uint64, flags int) (int, error) {
	fd, err := unix.PidfdOpen(pid, flags)
	if err == unix.ESRCH || err == unix.EINVAL {
		return -1, ErrGone
	}
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	if now, err := startTime(pid); err != nil || now != start {
		unix.Close(fd)
		return -1, ErrGone
	}
	return fd, nil
}

// Attach takes over a cell whose daemon has died. If the instance has ended meanwhile, and the keeper with it or not, the exit status is
// to be had from [Cell.Process] or, with ErrGone, from [LastExit].
func Attach(ctx context.Context, st State, group *account.Group) (c *Cell, err error) {
	c = newCell(Spec{Group: group, Run: st.Run, ArenaBase: st.ArenaBase, SlotSize: st.SlotSize})
	c.state, c.firstUID = st, st.FirstUID
	defer func() {
		if err != nil {
			c.Close()
			c = nil
		}
	}()
	c.Keeper.PID, c.Init.PID = st.Keeper, st.Init
	if c.Keeper.PidFD, err = openProcess(st.Keeper, st.KeeperStart, 0); err != nil {
		return nil, err
	}
	arena, err := c.Keeper.Take(fdArena)
	if err != nil {
		return nil, errors.Join(ErrGone, err)
	}
	if c.Arena, err = remote.OpenArena(arena, c.base, c.slotSize); err != nil {
		arena.Close()
		return nil, err
	}
	c.Keeper.Page, c.Init.Page = c.Arena.Page(slotKeeper), c.Arena.Page(slotInit)
	if c.Socket, err = c.Keeper.Take(fdOurSocket); err != nil {
		return nil, err
	}
	if st.Console {
		if c.Console, err = c.Keeper.Take(fdMaster); err != nil {
			return nil, err
		}
	}
	if c.statuses, err = reaper.Open(filepath.Join(st.Run, StatusFile), c.Keeper.PidFD); err != nil {
		return nil, err
	}
	if err := c.watchInit(); err != nil {
		return nil, err
	}
	return c, c.settle(ctx)
}

// watchInit waits for the end of init, which may have ended already.
func (c *Cell) watchInit() error {
	fd, err := openProcess(c.state.Init, c.state.InitStart, unix.PIDFD_NONBLOCK)
	switch {
	case err == nil:
		if c.Init.PidFD, err = unix.PidfdOpen(c.state.Init, 0); err != nil {
			unix.Close(fd)
			return err
		}
		c.init = c.statuses.Watch(c.state.Init, fd)
		c.init.Inside = 1
		return nil
	case errors.Is(err, ErrGone):
		e, err := LastExit(c.state)
		c.init = reaper.Over(c.state.Init, e, err)
		return nil
	}
	return err
}

// LastExit reads from a cell's run directory how its init ended; ErrLost if that is not there.
func LastExit(st State) (Exit, error) { return reaper.Last(filepath.Join(st.Run, StatusFile), st.Init) }

// settle ends what the daemon that died was in the middle of: a batch of the keeper's, messages that nobody took, stubs that were to become
// an exec's process.
func (c *Cell) settle(ctx context.Context) error {
	if err := c.Keeper.Page.Settle(ctx, c.Keeper.PidFD); err != nil {
		return fmt.Errorf("the keeper's last batch: %w", err)
	}
	theirs, err := c.Keeper.Take(fdSocket)
	if err != nil {
		return err
	}
	defer theirs.Close()
	for {
		var data [1]byte
		oob := make([]byte, unix.CmsgSpace(4*253))
		_, n, _, _, err := unix.Recvmsg(int(theirs.Fd()), data[:], oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			break
		}
		closeRights(oob[:n])
	}
	pids, err := c.group.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
		if err == nil && pid != c.Init.PID && strings.HasPrefix(exe, "/memfd:vps-stub") {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("kill stub %d: %w", pid, err)
			}
		}
	}
	return nil
}

func closeRights(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// Process is the instance's init.
func (c *Cell) Process() *Process { return c.init }

// Parked tells whether init's stub still waits to become init.
func (c *Cell) Parked() bool {
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(c.Init.PID), "exe"))
	return err == nil && strings.HasPrefix(exe, "/memfd:vps-stub")
}
