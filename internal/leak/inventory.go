package leak

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mark is part of the name of everything on a host that this project makes.
const mark = "vps"

// inventory is what stands on the machine under names of this project's kind, as "kind name".
type inventory struct {
	things map[string]bool
}

func take() (*inventory, error) {
	inv := &inventory{make(map[string]bool)}
	for _, collect := range []func() error{inv.cgroups, inv.mounts, inv.links, inv.namespaces, inv.files} {
		if err := collect(); err != nil {
			return nil, fmt.Errorf("look for leftovers: %w", err)
		}
	}
	return inv, nil
}

// minus lists what is in inv and not in before.
func (inv *inventory) minus(before *inventory) []string {
	var left []string
	for t := range inv.things {
		if !before.things[t] {
			left = append(left, t)
		}
	}
	slices.Sort(left)
	return left
}

func (inv *inventory) add(kind, name string) { inv.things[kind+" "+name] = true }

// cgroups collects empty cgroups only: one with processes is theirs, and if the processes are ours then
// they are leftovers themselves.
func (inv *inventory) cgroups() error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil // removed while we look
		}
		if err != nil {
			return err
		}
		if !d.IsDir() || !strings.Contains(d.Name(), mark) {
			return nil
		}
		procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err == nil && len(procs) == 0 {
			inv.add("cgroup", path)
		}
		return nil
	})
}

func (inv *inventory) mounts() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.Contains(f[4], mark) {
			inv.add("mount", f[4])
		}
	}
	return nil
}

func (inv *inventory) links() error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		if strings.Contains(l.Name, mark) {
			inv.add("link", l.Name)
		}
	}
	return nil
}

func (inv *inventory) namespaces() error { return inv.entries("network namespace", "/run/netns") }

func (inv *inventory) files() error {
	for _, dir := range []string{os.TempDir(), "/dev/shm", "/run"} {
		if err := inv.entries("file", dir); err != nil {
			return err
		}
	}
	return nil
}

// entries adds the entries of a directory that bear the mark at their beginning.
func (inv *inventory) entries(kind, dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), mark) {
			inv.add(kind, filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

// killDescendants kills and reaps every process below this one and returns what they were.
func killDescendants() ([]string, error) {
	var killed []string
	for deadline := time.Now().Add(grace); !reapAll(); {
		below, err := descendants()
		if err != nil {
			return killed, err
		}
		for pid, name := range below {
			if thing := fmt.Sprintf("process %d (%s)", pid, name); !slices.Contains(killed, thing) {
				killed = append(killed, thing)
			}
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
		if time.Now().After(deadline) {
			return killed, errors.New("processes left behind outlive SIGKILL")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return killed, nil
}

// descendants maps the pids of all living processes below this one to their names.
func descendants() (map[int]string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	parent, name := make(map[int]int), make(map[int]string)
	for _, dir := range dirs {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // gone
		}
		// pid (comm) state ppid …; comm may hold anything, proc_pid_stat(5)
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		pid, err := strconv.Atoi(filepath.Base(dir))
		if fields := strings.Fields(string(stat[end+1:])); err == nil && fields[0] != "Z" {
			parent[pid], _ = strconv.Atoi(fields[1])
			name[pid] = string(stat[open+1 : end])
		}
	}
	below := make(map[int]string)
	for pid := range parent {
		for p := parent[pid]; p > 0; p = parent[p] {
			if p == os.Getpid() {
				below[pid] = name[pid]
				break
			}
		}
	}
	return below, nil
}
