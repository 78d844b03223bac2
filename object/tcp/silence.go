package tcp

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vps/object"
	"vps/object/socket"
)

// Silence makes the TCP connections of processes, by their pids here, end without a word to their peers when their last descriptor is
// closed (TCP_REPAIR of tcp(7)), and takes those out of accept queues: they live on in a snapshot. The processes are frozen, and not to run
// again. Those that they have closed are not silenced.
func Silence(pids []int) error {
	done := make(map[string]bool) // by name of the socket
	var errs []error
	for _, pid := range pids {
		if err := silence(pid, done); err != nil && !object.Vanished(err) {
			errs = append(errs, fmt.Errorf("silence process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

func silence(pid int, done map[string]bool) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	defer unix.Close(pidfd)
	for _, e := range list {
		name, err := os.Readlink(dir + "/" + e.Name())
		if err != nil || !strings.HasPrefix(name, "socket:[") || done[name] {
			continue
		}
		done[name] = true
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("descriptor %q: %w", e.Name(), err)
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			return fmt.Errorf("copy descriptor %d: %w", number, err)
		}
		err = hush(fd)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("descriptor %d: %w", number, err)
		}
	}
	return nil
}

// hush sets a socket in repair mode, if it is one of TCP that says something when it is closed.
func hush(fd int) error {
	s, err := socket.Kind(fd)
	if err != nil || !restorable(s) || s.GetProtocol() != unix.IPPROTO_TCP {
		return err
	}
	now, err := readInfo(fd)
	if err != nil || now.state == stateClose {
		return err
	}
	if now.state == stateListen {
		waiting, err := acceptAll(fd)
		for _, fd := range waiting {
			err = errors.Join(err, hush(fd), unix.Close(fd))
		}
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
		return fmt.Errorf("TCP_REPAIR: %w", err)
	}
	return nil
}
