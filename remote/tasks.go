package remote

import (
	"fmt"
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
