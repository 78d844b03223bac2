package config

import (
	"slices"
	"strconv"
	"strings"
)

// key is what there is to know of one key of the file.
type key struct {
	name  string // in a family of keys, <n> or another word in <> stands for the argument
	value string // what a value looks like
	doc   string
	host  bool // gives something on the host: see DefaultRights

	// argument checks a family's argument and gives its canonical form. Nil for a single key.
	argument func(string) (string, error)
	access
}

// access is how a key's values get into a Config and out of it.
type access struct {
	set   func(c *Config, arg, value string) error
	get   func(c *Config) []assignment // none if there is nothing to write
	reset func(c *Config)              // to the default; in a family, all of it
}

type assignment struct{ arg, value string }

// KeyInfo describes a key for the reader of a listing.
type KeyInfo struct {
	Name    string // <n>, <name> or <resource> stands for an argument
	Value   string // the syntax of its value
	Default string // as written in a file; "" for none
	Doc     string
	Host    bool // not taken from a snapshot file, see [Config.DefaultRights]
}

// Keys lists all keys in the order in which they are written.
func Keys() []KeyInfo {
	infos := make([]KeyInfo, 0, len(keys))
	for _, k := range keys {
		info := KeyInfo{Name: k.name, Value: k.value, Doc: k.doc, Host: k.host}
		if set := k.get(Default("")); len(set) > 0 {
			info.Default = set[0].value
		}
		infos = append(infos, info)
	}
	return infos
}

// affixes returns what stands before and after the argument.
func (k *key) affixes() (prefix, suffix string) {
	prefix, rest, _ := strings.Cut(k.name, "<")
	_, suffix, _ = strings.Cut(rest, ">")
	return prefix, suffix
}

// with returns the key's name with an argument in its place.
func (k *key) with(arg string) string {
	if k.argument == nil {
		return k.name
	}
	prefix, suffix := k.affixes()
	return prefix + arg + suffix
}

// match reports whether the key is meant by what is written, and with what argument.
func (k *key) match(written string) (arg string, ok bool) {
	if k.argument == nil {
		return "", strings.EqualFold(written, k.name)
	}
	prefix, suffix := k.affixes()
	n := len(written) - len(suffix)
	if n <= len(prefix) || !strings.EqualFold(written[:len(prefix)], prefix) || !strings.EqualFold(written[n:], suffix) {
		return "", false
	}
	return written[len(prefix):n], true
}

// lookup finds the key meant by what is written, and the canonical argument.
func lookup(written string) (*key, string, error) {
	for i := range keys {
		k := &keys[i]
		arg, ok := k.match(written)
		if !ok {
			continue
		}
		if k.argument == nil {
			return k, "", nil
		}
		arg, err := k.argument(arg)
		return k, arg, err
	}
	if len(written) >= 6 && strings.EqualFold(written[:6], "EPAIR_") {
		return nil, "", fault("there are no epair interfaces on Linux").hint(
			"NETIF_<n>_ADDRESS gives the instance an interface at the switch; for a link of your own make a veth pair, and ip link set IF netns PID moves one end in")
	}
	e := fault("unknown key").hint("vps.conf(5) lists the keys")
	return nil, "", e.didYouMean(written, candidates(written))
}

// candidates returns the keys that a misspelt one may be meant for; a family's with the argument that was written.
func candidates(written string) []string {
	digits := func(r rune) bool { return '0' <= r && r <= '9' }
	var all []string
	for _, k := range keys {
		arg := ""
		if strings.Contains(k.name, "<n>") {
			if from := strings.IndexFunc(written, digits); from >= 0 {
				arg = written[from : from+len(written[from:])-len(strings.TrimLeftFunc(written[from:], digits))]
			} else {
				arg = "<n>"
			}
		} else if k.argument != nil {
			_, arg, _ = strings.Cut(written, "_")
		}
		all = append(all, k.with(arg))
	}
	return all
}

// number is the argument of families that are counted.
func number(arg string) (string, error) {
	const most = 255
	n, err := strconv.ParseUint(arg, 10, 16)
	if err != nil || n > most {
		return "", fault("%s is no number from 0 to %d", shown(arg), most)
	}
	return strconv.FormatUint(n, 10), nil
}

// codec turns the text of a value into what the program uses, and back. The text of what is not set is empty.
type codec[T any] struct {
	parse  func(string) (T, error)
	format func(T) string
}

// field is the access to a key that sets one field.
func field[T any](of func(*Config) *T, as codec[T]) access {
	return access{
		set: func(c *Config, _, value string) error {
			v, err := as.parse(value)
			if err == nil {
				*of(c) = v
			}
			return err
		},
		get: func(c *Config) []assignment {
			if value := as.format(*of(c)); value != "" {
				return []assignment{{value: value}}
			}
			return nil
		},
		reset: reset(of),
	}
}

func reset[T any](of func(*Config) *T) func(*Config) {
	return func(c *Config) { *of(c) = *of(Default("")) }
}

// insert puts v into a sorted slice, unless something equal is there, and returns the place it has in the slice.
func insert[T any](s *[]T, v T, compare func(a, b T) int) *T {
	i, found := slices.BinarySearchFunc(*s, v, compare)
	if !found {
		*s = slices.Insert(*s, i, v)
	}
	return &(*s)[i]
}
