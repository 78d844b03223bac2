package remote

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tasks lists the thread ids of a process, ascending, as in its /proc directory.
func Tasks(pid int) ([]int, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	var tids []int
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", dir, err)
		}
		if n == 0 {
			slices.Sort(tids)
			return tids, nil
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			tid, err := strconv.Atoi(name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", dir, err)
			}
			tids = append(tids, tid)
		}
	}
}

// ended tells whether a task is gone, or a zombie.
func ended(tid int) bool {
	state, err := taskState(tid)
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || state == 'Z' || state == 'X'
}

// taskState returns the state letter of a task, as in /proc/TID/stat; 0 if that has none.
func taskState(tid int) (byte, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/stat")
	if err != nil {
		return 0, err
	}
	// "pid (comm) state"
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 && i+2 < len(stat) {
		return stat[i+2], nil
	}
	return 0, nil
}
