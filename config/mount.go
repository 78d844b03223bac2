package config

import (
	"cmp"
	"strconv"
	"strings"
)

// Mount is a volume: something of the host's, or fresh memory, seen in a directory of the instance.
type Mount struct {
	N        int    // of the key MOUNT_<n>; lower ones are mounted first
	Source   string // path on the host; "" for a tmpfs(5)
	Target   string // path inside the instance
	ReadOnly bool
	Size     uint64 // of a tmpfs, bytes; 0 for the kernel's default
}

var mount = access{
	set: func(c *Config, arg, value string) error {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		m, err := parseMount(value)
		if err != nil {
			return err
		}
		m.N = n
		*insert(&c.Mounts, m, func(a, b Mount) int { return cmp.Compare(a.N, b.N) }) = m
		return nil
	},
	get: func(c *Config) []assignment {
		var all []assignment
		for _, m := range c.Mounts {
			all = append(all, assignment{strconv.Itoa(m.N), m.String()})
		}
		return all
	},
	reset: reset(func(c *Config) *[]Mount { return &c.Mounts }),
}

const tmpfs = "tmpfs"

func parseMount(s string) (m Mount, err error) {
	words, err := splitWords(s)
	if err != nil {
		return m, err
	}
	if len(words) < 2 {
		return m, fault("%s has no target", shown(s)).hint("SOURCE TARGET [ro], or tmpfs TARGET [ro] [size=N]")
	}
	if words[0] != tmpfs {
		if m.Source, err = absolute(words[0]); err != nil {
			return m, err
		}
	}
	if m.Target, err = directory.parse(words[1]); err != nil {
		return m, err
	}
	for _, option := range words[2:] {
		bytes, isSize := strings.CutPrefix(option, "size=")
		switch {
		case option == "ro":
			m.ReadOnly = true
		case isSize && m.Source == "":
			if m.Size, err = size(bytes); err != nil {
				return m, err
			}
		case isSize:
			return m, fault("only a tmpfs has a size").hint("tmpfs %s %s", m.Target, option)
		default:
			return m, fault("unknown option %s", shown(option)).hint("ro, and size=N of a tmpfs")
		}
	}
	return m, nil
}

// String returns the mount as it is written in a file.
func (m Mount) String() string {
	words := []string{tmpfs, m.Target}
	if m.Source != "" {
		words[0] = m.Source
	}
	if m.ReadOnly {
		words = append(words, "ro")
	}
	if m.Size != 0 {
		words = append(words, "size="+sizeText(m.Size))
	}
	return joinWords(words)
}
