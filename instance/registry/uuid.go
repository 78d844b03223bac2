package registry

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// UUID is a random number of which there is one in the world, RFC 9562; zero: none.
type UUID [16]byte

// NewUUID makes one.
func NewUUID() (u UUID, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return u, err
	}
	return u, u.UnmarshalText([]byte(strings.TrimSpace(string(text))))
}

// UUIDFrom takes a number out of a snapshot, where it may be missing.
func UUIDFrom(b []byte) (u UUID, err error) {
	if len(b) != 0 && len(b) != len(u) {
		return u, fmt.Errorf("a uuid of %d bytes", len(b))
	}
	copy(u[:], b)
	return u, nil
}

// String gives the usual form.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// MarshalText does too.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads it.
func (u *UUID) UnmarshalText(text []byte) error {
	digits := strings.ReplaceAll(string(text), "-", "")
	if len(digits) != 2*len(u) {
		return fmt.Errorf("%q is no uuid", text)
	}
	_, err := hex.Decode(u[:], []byte(digits))
	return err
}
