package config

import (
	"cmp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Rlimit is a resource limit of init's, which its children inherit, setrlimit(2).
type Rlimit struct {
	Name       string // of the resource, "NOFILE"
	Resource   int    // its number, asm-generic/resource.h
	Soft, Hard uint64 // unix.RLIM_INFINITY for none
}

type rlimitKind struct {
	name   string
	number int
	bytes  bool   // counted in bytes, so that a unit makes sense
	most   uint64 // 0 if any value will do
}

var rlimitKinds = []rlimitKind{
	{name: "AS", number: unix.RLIMIT_AS, bytes: true},
	{name: "CORE", number: unix.RLIMIT_CORE, bytes: true},
	{name: "CPU", number: unix.RLIMIT_CPU},
	{name: "DATA", number: unix.RLIMIT_DATA, bytes: true},
	{name: "FSIZE", number: unix.RLIMIT_FSIZE, bytes: true},
	{name: "LOCKS", number: unix.RLIMIT_LOCKS},
	{name: "MEMLOCK", number: unix.RLIMIT_MEMLOCK, bytes: true},
	{name: "MSGQUEUE", number: unix.RLIMIT_MSGQUEUE, bytes: true},
	{name: "NICE", number: unix.RLIMIT_NICE, most: 40},
	{name: "NOFILE", number: unix.RLIMIT_NOFILE, most: 1 << 30},
	{name: "NPROC", number: unix.RLIMIT_NPROC},
	{name: "RSS", number: unix.RLIMIT_RSS, bytes: true},
	{name: "RTPRIO", number: unix.RLIMIT_RTPRIO, most: 99},
	{name: "RTTIME", number: unix.RLIMIT_RTTIME},
	{name: "SIGPENDING", number: unix.RLIMIT_SIGPENDING},
	{name: "STACK", number: unix.RLIMIT_STACK, bytes: true},
}

// rlimitKindOf finds a resource by its name, in capitals or not.
func rlimitKindOf(name string) (rlimitKind, error) {
	var names []string
	for _, k := range rlimitKinds {
		if strings.EqualFold(name, k.name) {
			return k, nil
		}
		names = append(names, k.name)
	}
	e := fault("unknown resource %s", shown(name)).hint("one of %s", strings.Join(names, " "))
	return rlimitKind{}, e.didYouMean(name, names)
}

func resource(arg string) (string, error) {
	k, err := rlimitKindOf(arg)
	if err != nil {
		return arg, err
	}
	return k.name, nil
}

var rlimit = access{
	set: func(c *Config, arg, value string) error {
		k, err := rlimitKindOf(arg)
		if err != nil {
			return err
		}
		left, right, two := strings.Cut(value, ":")
		if !two {
			right = left
		}
		soft, err := k.parse(left)
		if err != nil {
			return err
		}
		hard, err := k.parse(right)
		if err != nil {
			return err
		}
		if soft > hard {
			return fault("%s: the soft limit is above the hard limit", shown(value))
		}
		r := Rlimit{Name: k.name, Resource: k.number, Soft: soft, Hard: hard}
		*insert(&c.Rlimits, r, func(a, b Rlimit) int { return cmp.Compare(a.Name, b.Name) }) = r
		return nil
	},
	get: func(c *Config) []assignment {
		var all []assignment
		for _, r := range c.Rlimits {
			value := rlimitText(r.Soft)
			if r.Hard != r.Soft {
				value += ":" + rlimitText(r.Hard)
			}
			all = append(all, assignment{r.Name, value})
		}
		return all
	},
	reset: reset(func(c *Config) *[]Rlimit { return &c.Rlimits }),
}

func (k rlimitKind) parse(s string) (uint64, error) {
	if strings.EqualFold(s, "unlimited") {
		return unix.RLIM_INFINITY, nil
	}
	read := count
	if k.bytes {
		read = size
	}
	n, err := read(s)
	if err == nil && k.most > 0 && n > k.most {
		err = fault("%s is more than %d", shown(s), k.most)
	}
	return n, err
}

func rlimitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}
