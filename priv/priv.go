// Package priv decides what an instance may do beyond ordinary programs: its
// capability bounding set and a seccomp filter, from privileges that are
// allowed, denied (EPERM) or absent (ENOSYS).
//
// A privilege is a Linux capability (CAP_NET_ADMIN), with the system calls that
// it alone gates, or a class of other system calls (IO_URING). Names are taken without regard to case, classes and FreeBSD's
// priv(9) names with or without PRIV_, capabilities with or without CAP_.
// Of the priv(9) names those are known that have a meaning here; several may
// stand for one privilege of ours, which is then allowed or denied as a whole.
package priv

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// ErrUnknown says that no privilege has a name.
	ErrUnknown = errors.New("no such privilege")
	// ErrConflict says that a privilege is to have two states.
	ErrConflict = errors.New("given twice")
	// ErrExceedsParent says that a set allows what the parent's does not.
	ErrExceedsParent = errors.New("not allowed to the parent")
)

// A State is what becomes of the use of a privilege.
type State uint8

const (
	Deny  State = iota // refused with EPERM
	Nosys              // absent: ENOSYS
	Allow              // granted
)

func (s State) String() string {
	return [...]string{"deny", "nosys", "allow"}[s]
}

// A Set holds the state of every privilege. It is not changed after it was
// made, and may be used by several goroutines.
type Set struct {
	states [len(table)]State
}

// Host returns the set of vps0, which allows everything.
func Host() *Set {
	s := new(Set)
	for i := range s.states {
		s.states[i] = Allow
	}
	return s
}

// New returns the default set with changes. userns says that the instance has
// a user namespace of its own; the defaults without one are smaller, since the
// kernel then does not tell the instance's root from the host's.
//
// Allowing a class (MOUNT) also allows the capabilities that its calls need.
// Denying one leaves them, since other calls may need them. Where the kernel
// itself refuses for want of a capability, that is EPERM, under nosys too.
//
// Errors wrap ErrUnknown and name the nearest privilege, or ErrConflict.
func New(allow, deny, nosys []string, userns bool) (*Set, error) {
	s := new(Set)
	for i, p := range table {
		s.states[i] = p.isolated
		if !userns {
			s.states[i] = p.shared
		}
	}
	chosen := make(map[int]string)
	for _, list := range []struct {
		state State
		names []string
	}{{Allow, allow}, {Deny, deny}, {Nosys, nosys}} {
		for _, name := range list.names {
			i, err := lookup(name)
			if err != nil {
				return nil, err
			}
			choice := fmt.Sprintf("%s %s", list.state, name)
			if before, ok := chosen[i]; ok && s.states[i] != list.state {
				return nil, fmt.Errorf("privilege %s: %w: %s, %s", table[i].name, ErrConflict, before, choice)
			}
			chosen[i] = choice
			s.states[i] = list.state
		}
	}
	// What was chosen by name outweighs what follows from a class.
	for i := range chosen {
		if s.states[i] != Allow {
			continue
		}
		for _, c := range table[i].needs {
			j, err := lookup(c)
			if err != nil {
				return nil, err
			}
			if _, ok := chosen[j]; !ok {
				s.states[j] = Allow
			}
		}
	}
	return s, nil
}

// Check returns an error that wraps ErrExceedsParent, and names the privileges,
// if the set allows more than that of the instance above.
func (s *Set) Check(parent *Set) error {
	var excess []string
	for i, state := range s.states {
		if state == Allow && parent.states[i] != Allow {
			excess = append(excess, table[i].name)
		}
	}
	if excess != nil {
		return fmt.Errorf("privilege %s: %w", strings.Join(excess, ", "), ErrExceedsParent)
	}
	return nil
}

// Capabilities returns the bounding set, bit N for capability N of
// linux/capability.h. Capabilities newer than this program are not in it.
func (s *Set) Capabilities() uint64 {
	mask := uint64(0)
	for i, p := range table {
		if p.isCapability() && s.states[i] == Allow {
			mask |= 1 << p.capability
		}
	}
	return mask
}

// An Entry is one privilege of a set.
type Entry struct {
	Name  string
	State State
	About string // what it lets an instance do
}

// List returns all privileges: capabilities by number, then classes by name.
func (s *Set) List() []Entry {
	list := make([]Entry, len(table))
	for i, p := range table {
		list[i] = Entry{p.name, s.states[i], p.about}
	}
	return list
}

// lookup finds a privilege by any of its names.
func lookup(name string) (int, error) {
	bare := strings.ToUpper(strings.TrimSpace(name))
	bare = strings.TrimPrefix(strings.TrimPrefix(bare, "PRIV_"), "CAP_")
	nearest, least := "", len(bare)/2+1
	for i, p := range table {
		for _, known := range append([]string{strings.TrimPrefix(p.name, "CAP_")}, p.aliases...) {
			if known == bare {
				return i, nil
			}
			if d := distance(known, bare); d < least {
				nearest, least = known, d
				if known == strings.TrimPrefix(p.name, "CAP_") {
					nearest = p.name
				}
			}
		}
	}
	if nearest != "" {
		return 0, fmt.Errorf("privilege %q: %w; did you mean %s?", name, ErrUnknown, nearest)
	}
	return 0, fmt.Errorf("privilege %q: %w", name, ErrUnknown)
}

// distance is Levenshtein's: the fewest insertions, deletions and changes of a
// byte that make a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Names returns every name that [New] knows, sorted, for completion.
func Names() []string {
	var all []string
	for _, p := range table {
		all = append(all, p.name)
		all = append(all, p.aliases...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
