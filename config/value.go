package config

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxPath = 4095 // PATH_MAX of limits.h without the closing NUL
	maxList = 256  // entries of a list
)

func same(s string) string { return s }

// instance is the name of an instance.
var instance = codec[string]{
	parse:  func(s string) (string, error) { return s, ValidName(s) },
	format: same,
}

// command is a line for a shell on the host.
var command = codec[string]{
	parse: func(s string) (string, error) {
		if len(s) > maxPath {
			return "", fault("a command of more than %d bytes", maxPath)
		}
		return s, nil
	},
	format: same,
}

// directory is an absolute path other than the root's.
var directory = codec[string]{
	parse: func(s string) (string, error) {
		p, err := absolute(s)
		if err == nil && p == "/" {
			return "", fault("the root directory itself cannot be used")
		}
		return p, err
	},
	format: same,
}

// absolute checks a path and takes superfluous slashes out of it. "..", which may lead elsewhere than it seems
// where there are symbolic links, is refused.
func absolute(s string) (string, error) {
	switch {
	case !path.IsAbs(s):
		return "", fault("%s is no absolute path", shown(s))
	case len(s) > maxPath:
		return "", fault("a path of more than %d bytes", maxPath)
	case slices.Contains(strings.Split(s, "/"), ".."):
		return "", fault("%s has a .. in it", shown(s)).hint("write the path without it")
	}
	return path.Clean(s), nil
}

// hostname is a node name as sethostname(2) takes it.
var hostname = codec[string]{
	parse: func(s string) (string, error) {
		const most = 64 // __NEW_UTS_LEN, linux/utsname.h
		if len(s) > most || !only(s, "-._") || !alphanumeric(s[0]) {
			return "", fault("%s is no host name", shown(s)).hint("at most %d letters, digits, -, _ and dots", most)
		}
		return s, nil
	},
	format: same,
}

// machineID is the content of machine-id(5). A UUID's dashes may be there.
var machineID = codec[string]{
	parse: func(s string) (string, error) {
		id := strings.ToLower(strings.ReplaceAll(s, "-", ""))
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
			return "", fault("%s is no machine id", shown(s)).hint("32 hexadecimal digits, not all of them 0; dbus-uuidgen makes one")
		}
		return id, nil
	},
	format: same,
}

// word is the name of something that others know: a ruleset, a privilege.
var word = codec[string]{
	parse: func(s string) (string, error) {
		if len(s) > maxLabel || !alphanumeric(s[0]) || !only(s, "-_") {
			return "", fault("%s is no name", shown(s)).hint("at most %d letters, digits, - and _", maxLabel)
		}
		return s, nil
	},
	format: same,
}

// yesNo is a switch that is on unless set to no, or the reverse; always written.
var yesNo = codec[bool]{
	parse: func(s string) (bool, error) {
		switch strings.ToLower(s) {
		case "yes":
			return true, nil
		case "no":
			return false, nil
		}
		return false, fault("%s is not yes or no", shown(s))
	},
	format: func(on bool) string {
		if on {
			return "yes"
		}
		return "no"
	},
}

// integer is a number from least to most.
func integer(least, most int) codec[int] {
	return codec[int]{
		parse: func(s string) (int, error) {
			n, err := strconv.Atoi(s)
			if err != nil || n < least || n > most {
				return 0, fault("%s is no number from %d to %d", shown(s), least, most)
			}
			return n, nil
		},
		format: strconv.Itoa,
	}
}

// duration is a time in seconds or with units, up to a day.
var duration = codec[time.Duration]{
	parse: func(s string) (time.Duration, error) {
		const most = 24 * time.Hour
		d, err := time.ParseDuration(s)
		if n, e := strconv.ParseUint(s, 10, 32); e == nil {
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d < 0 || d > most {
			return 0, fault("%s is no time from 0 to %v", shown(s), most).hint("seconds, or with units as in 1m30s")
		}
		return d, nil
	},
	format: func(d time.Duration) string {
		if d%time.Second == 0 {
			return strconv.FormatInt(int64(d/time.Second), 10)
		}
		return d.String()
	},
}

// list is several values with commas or white space between them, none of them twice.
func list[T any](one codec[T]) codec[[]T] {
	return codec[[]T]{
		parse: func(s string) ([]T, error) {
			fields := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
			switch {
			case len(fields) == 0:
				return nil, fault("an empty list").hint("leave the line out to have the default")
			case len(fields) > maxList:
				return nil, fault("%d entries, at most %d are possible", len(fields), maxList)
			}
			var all []T
			seen := make(map[string]bool)
			for _, f := range fields {
				v, err := one.parse(f)
				if err != nil {
					return nil, err
				}
				if text := strings.ToUpper(one.format(v)); seen[text] {
					return nil, fault("%s is there twice", shown(f))
				} else {
					seen[text] = true
				}
				all = append(all, v)
			}
			return all, nil
		},
		format: func(all []T) string {
			texts := make([]string, len(all))
			for i, v := range all {
				texts[i] = one.format(v)
			}
			return strings.Join(texts, ",")
		},
	}
}
