package config

import (
	"errors"
	"fmt"
	"strings"
)

// ErrName is the class of errors of [ValidName].
var ErrName = errors.New("invalid instance name")

// Host is the name of the instance that is the host itself. No other instance can have it.
const Host = "vps0"

const (
	maxLabel = 63
	maxName  = 255 - len("vps_.conf") // its file's name has to fit NAME_MAX, limits.h
)

// ValidName says what is wrong with the name of an instance. A name is made of letters, digits, "-" and "_",
// begins with a letter or digit, and has at most 63 bytes; a descendant's name is that of its parent, a dot and
// its own. The host's, vps0, is reserved.
func ValidName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty", ErrName)
	case len(name) > maxName:
		return fmt.Errorf("%w: longer than %d bytes", ErrName, maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return fmt.Errorf("%w %s: nothing before or after a dot", ErrName, shown(name))
		case label == Host:
			return fmt.Errorf("%w %s: %s is the host", ErrName, shown(name), Host)
		case len(label) > maxLabel:
			return fmt.Errorf("%w %s: a part is longer than %d bytes", ErrName, shown(name), maxLabel)
		case !alphanumeric(label[0]):
			return fmt.Errorf("%w %s: has to begin with a letter or digit", ErrName, shown(name))
		case !only(label, "-_"):
			return fmt.Errorf("%w %s: only letters, digits, - and _ (and dots between an instance and its descendants)", ErrName, shown(name))
		}
	}
	return nil
}

func alphanumeric(b byte) bool {
	return '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
}

// only reports whether s has only letters, digits and bytes of more.
func only(s, more string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte(more, s[i]) < 0 {
			return false
		}
	}
	return true
}
