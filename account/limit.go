package account

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that a resource is known but cannot be limited yet.
var ErrUnsupported = errors.New("not supported yet")

// Resources, by the names that vps.conf(5) and vpsctl(8) give them.
const (
	Phys    = "phys"    // memory with page cache and kernel memory, bytes
	Procs   = "procs"   // tasks: the kernel counts each thread
	Virt    = "virt"    // address space, bytes
	PctCPU  = "pctcpu"  // CPU time, percent of one CPU
	BlockIO = "blockio" // block operations per second
	Threads = "threads" // tasks
)

// A Limit bounds one resource. Soft may be passed while nobody else suffers,
// Hard never; 0 is no limit.
type Limit struct {
	Resource   string
	Soft, Hard uint64
}

// Validate refuses, without looking at the host, what SetLimits would refuse
// everywhere: an unknown resource, one that wraps ErrUnsupported, or a soft
// limit above the hard one.
func (l Limit) Validate() error {
	switch l.Resource {
	case Phys, Procs:
	case Virt, PctCPU, BlockIO, Threads:
		return fmt.Errorf("limit %s: %w", l.Resource, ErrUnsupported)
	default:
		return fmt.Errorf("limit %s: no such resource", l.Resource)
	}
	if l.Hard != 0 && l.Soft > l.Hard {
		return fmt.Errorf("limit %s: soft limit %d is above hard limit %d", l.Resource, l.Soft, l.Hard)
	}
	return nil
}

// SetLimits sets the limits given and leaves others. Nothing is set if one of
// them is not valid or its controller is missing (ErrNoController).
//
// At its hard limit of phys the kernel kills a process of the instance, and of
// procs fork(2) and clone(2) answer EAGAIN. The soft limit of phys makes the
// instance the first to give memory back; that of procs is only counted. A
// hard phys limit below what is in use and cannot be reclaimed is EBUSY in v1,
// and kills in v2.
func (g *Group) SetLimits(limits []Limit) error {
	setters := make([]func(Limit) error, len(limits))
	for i, l := range limits {
		if err := l.Validate(); err != nil {
			return err
		}
		r, err := g.open(l.Resource)
		if err != nil {
			return fmt.Errorf("limit %s: %w", l.Resource, err)
		}
		setters[i] = r.set
	}
	for i, l := range limits {
		if err := setters[i](l); err != nil {
			return fmt.Errorf("limit %s: %w", l.Resource, err)
		}
	}
	return nil
}

// Usage is the state of one resource of an instance. Hits count how often a
// limit was reached. The kernel counts no soft hits of procs, nor of phys in
// v1: there SoftHits is 1 if Peak was above Soft.
type Usage struct {
	Limit
	Current, Peak      uint64
	SoftHits, HardHits uint64
}

// Flag is the S column of argshow: C above the soft limit now, X the hard
// limit was hit, x only the soft one was, _ none.
func (u Usage) Flag() byte {
	switch {
	case u.Soft != 0 && u.Current > u.Soft:
		return 'C'
	case u.HardHits != 0:
		return 'X'
	case u.SoftHits != 0:
		return 'x'
	}
	return '_'
}

// Usage measures the resources whose controllers this host has.
func (g *Group) Usage() ([]Usage, error) {
	var all []Usage
	for _, name := range []string{Phys, Procs} {
		r, err := g.open(name)
		if errors.Is(err, ErrNoController) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("usage of %s: %w", name, err)
		}
		u, err := r.usage()
		if err != nil {
			return nil, fmt.Errorf("usage of %s: %w", name, err)
		}
		u.Resource = name
		all = append(all, u)
	}
	return all, nil
}

// A resource is one group in the controller's hierarchy.
type resource interface {
	set(Limit) error
	usage() (Usage, error)
}

func (g *Group) open(name string) (resource, error) {
	controller := map[string]string{Phys: memory, Procs: pids}[name]
	if _, err := g.h.Controller(controller); err != nil {
		return nil, err
	}
	dir := g.dir()
	base, v1 := g.h.v1[controller]
	if v1 {
		dir = filepath.Join(base, g.path)
	}
	switch {
	case controller == pids:
		return pidsGroup{dir}, nil
	case v1:
		return memoryV1{dir}, nil
	}
	return memoryV2{dir}, nil
}

type memoryV2 struct{ dir string }

func (m memoryV2) set(l Limit) error {
	return errors.Join(
		write(m.dir, "memory.high", orMax(l.Soft)),
		write(m.dir, "memory.max", orMax(l.Hard)),
	)
}

func (m memoryV2) usage() (u Usage, err error) {
	err = readAll(m.dir, map[string]*uint64{
		"memory.current": &u.Current, "memory.peak": &u.Peak,
		"memory.high": &u.Soft, "memory.max": &u.Hard,
	})
	if err != nil {
		return u, err
	}
	events, err := keyed(m.dir, "memory.events")
	u.SoftHits, u.HardHits = events["high"], events["max"]
	return u, err
}

type memoryV1 struct{ dir string }

func (m memoryV1) set(l Limit) error {
	return errors.Join(
		write(m.dir, "memory.soft_limit_in_bytes", orMinus(l.Soft)),
		write(m.dir, "memory.limit_in_bytes", orMinus(l.Hard)),
	)
}

func (m memoryV1) usage() (u Usage, err error) {
	err = readAll(m.dir, map[string]*uint64{
		"memory.usage_in_bytes": &u.Current, "memory.max_usage_in_bytes": &u.Peak,
		"memory.soft_limit_in_bytes": &u.Soft, "memory.limit_in_bytes": &u.Hard,
		"memory.failcnt": &u.HardHits,
	})
	for _, limit := range []*uint64{&u.Soft, &u.Hard} {
		if unlimited(*limit) {
			*limit = 0
		}
	}
	u.SoftHits = passed(u)
	return u, err
}

type pidsGroup struct{ dir string }

// softLimit keeps, on the group itself, the limit that the kernel has no file
// for, so that it lives as long as the instance does.
const softLimit = "trusted.vps.soft"

func (p pidsGroup) set(l Limit) error {
	soft := strconv.FormatUint(l.Soft, 10)
	if err := unix.Setxattr(p.dir, softLimit, []byte(soft), 0); err != nil {
		return fmt.Errorf("set %s of %s: %w", softLimit, p.dir, err)
	}
	return write(p.dir, "pids.max", orMax(l.Hard))
}

func (p pidsGroup) usage() (u Usage, err error) {
	err = readAll(p.dir, map[string]*uint64{
		"pids.current": &u.Current, "pids.peak": &u.Peak, "pids.max": &u.Hard,
	})
	if err != nil {
		return u, err
	}
	if u.Soft, err = p.soft(); err != nil {
		return u, err
	}
	u.SoftHits = passed(u)
	u.HardHits, err = p.hits()
	return u, err
}

func (p pidsGroup) soft() (uint64, error) {
	var value [20]byte
	n, err := unix.Getxattr(p.dir, softLimit, value[:])
	if errors.Is(err, unix.ENODATA) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get %s of %s: %w", softLimit, p.dir, err)
	}
	return strconv.ParseUint(string(value[:n]), 10, 64)
}

// hits counts the forks refused. Where pids.events.local exists (v2 since
// Linux 6.11) it counts them at the group whose limit was hit; else
// pids.events counts them at the group of who forked.
func (p pidsGroup) hits() (uint64, error) {
	events, err := keyed(p.dir, "pids.events.local")
	if !errors.Is(err, fs.ErrNotExist) {
		return events["max"], err
	}
	total := uint64(0)
	err = walk(p.dir, func(parent *os.Root, name string) error {
		f, err := parent.Open(filepath.Join(name, "pids.events"))
		if err != nil {
			return err
		}
		defer f.Close()
		events, err := parseKeyed(f)
		total += events["max"]
		return err
	})
	return total, err
}

func orMax(n uint64) string {
	if n == 0 {
		return "max"
	}
	return strconv.FormatUint(n, 10)
}

func orMinus(n uint64) string {
	if n == 0 {
		return "-1"
	}
	return strconv.FormatUint(n, 10)
}

func passed(u Usage) uint64 {
	if u.Soft != 0 && u.Peak > u.Soft {
		return 1
	}
	return 0
}
