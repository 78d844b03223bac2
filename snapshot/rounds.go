package snapshot

import (
	"context"
	"fmt"
	"slices"
	"time"

	"vps/linux"
	"vps/object"
	"vps/object/memory"
	"vps/pager"
)

// Way is when memory is copied.
type Way string

const (
	Auto   Way = "auto"   // in rounds where that is possible and worth it; so is the empty one
	Rounds Way = "rounds" // in rounds while the instance runs, and what has changed since while it is frozen
	Frozen Way = "frozen" // all of it while the instance is frozen
)

// ParseWay reads a way by its name.
func ParseWay(name string) (Way, error) {
	switch w := Way(name); w {
	case "", Auto, Rounds, Frozen:
		return w, nil
	}
	return "", fmt.Errorf("copy memory %q: not one of %s, %s, %s", name, Auto, Rounds, Frozen)
}

// Round is what one round copied while the instance ran.
type Round struct {
	Bytes uint64
	Took  time.Duration
}

const (
	maxRounds = 6
	// enough is what may be left for the frozen time: it takes a millisecond or two.
	enough = 4 << 20
)

// canTrack tells whether this kernel can follow what a process writes to.
func canTrack() error {
	features, err := linux.UserfaultfdFeatures()
	if err != nil {
		return fmt.Errorf("userfaultfd: %w", err)
	}
	if features&linux.UFFD_FEATURE_WP_ASYNC == 0 {
		return fmt.Errorf("userfaultfd WP_ASYNC (Linux 6.7) is not there")
	}
	return nil
}

// copyRounds copies memory while the instance runs, until little is written to between two rounds, or no less.
// procs are the processes for the first one.
func copyRounds(ctx context.Context, src *Source, pages *pager.Copy, procs crowd, report *Report) error {
	for n := 1; n <= maxRounds; n++ {
		if n > 1 {
			var err error
			if procs, _, err = src.look(); err != nil {
				return err
			}
			defer procs.close()
		}
		spaces := readSpaces(procs, pages)
		begin := time.Now()
		copied, stopped, err := pages.Round(ctx, spaces)
		left := pages.Written(spaces)
		if err != nil {
			return err
		}
		if copied == 0 {
			return nil
		}
		report.Stopped = max(report.Stopped, stopped)
		report.Rounds = append(report.Rounds, Round{copied, time.Since(begin)})
		if src.Progress != nil {
			src.Progress(n, report.Rounds[n-1])
		}
		if left <= enough || left > copied/4*3 {
			return nil
		}
	}
	return nil
}

// readSpaces reads the address spaces that are, or are worth to be, copied in rounds. Who is not found has ended, or is named when it
// is frozen.
func readSpaces(procs crowd, pages *pager.Copy) (spaces []*pager.Space) {
	for _, p := range procs {
		s := readSpace(p, pages)
		if s == nil {
			continue
		}
		if other := sharer(s, spaces); other != nil {
			other.Direct = other.Direct || s.Direct
		} else {
			spaces = append(spaces, s)
		}
	}
	return spaces
}

// sharer returns the address space that one is the same as, of others; nil: it is none of them.
func sharer(s *pager.Space, others []*pager.Space) *pager.Space {
	at := slices.IndexFunc(others, func(o *pager.Space) bool {
		order, err := linux.Kcmp(o.PID, s.PID, linux.KCMP_VM, 0, 0)
		return err == nil && order == 0
	})
	if at < 0 {
		return nil
	}
	return others[at]
}

// readSpace returns the address space of a process; nil if it is not to be copied now.
func readSpace(p object.Proc, pages *pager.Copy) *pager.Space {
	id := uint64(p.PID)
	if !pages.Tracks(id) && !pager.Worth((p.Status.RssAnon+p.Status.VmSwap)<<10, p.Status.Threads) {
		return nil
	}
	as, err := memory.ReadAddressSpace(p)
	if err != nil {
		return nil
	}
	s := as.Space(id)
	s.Threads = p.Status.Threads
	if s.Direct, err = writesDirectly(p); err != nil {
		return nil
	}
	return s
}

// reserve makes room for what is left to be copied. old says that the processes were looked at a while ago.
func reserve(src *Source, pages *pager.Copy, procs crowd, old bool) error {
	if old {
		var err error
		if procs, _, err = src.look(); err != nil {
			return err
		}
		defer procs.close()
	}
	room := pages.Written(readSpaces(procs, pages)) * 2
	for _, p := range procs {
		if !pages.Tracks(uint64(p.PID)) {
			room += (p.Status.RssAnon + p.Status.VmSwap) << 10
		}
	}
	return pages.Reserve(room)
}
