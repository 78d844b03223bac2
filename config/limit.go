package config

import (
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Limit is how much of a resource an instance may have. Zero is no limit.
type Limit struct {
	Soft uint64 // may be passed while nobody else suffers, and is counted
	Hard uint64 // is never passed
}

// Limits are an instance's limits by resource.
type Limits struct {
	Phys    Limit // physical memory, bytes
	Virt    Limit // address space, bytes
	PctCPU  Limit // processor time, percent of one processor: 200 is two
	BlockIO Limit // block operations per second
	Threads Limit // tasks
	Procs   Limit // processes
}

// NamedLimit is a limit with its resource's name in LIMITS.
type NamedLimit struct {
	Resource string
	Bytes    bool // counted in bytes
	*Limit
}

// All returns the limits, set or not, in the order in which they are written.
func (l *Limits) All() []NamedLimit {
	return []NamedLimit{
		{"phys", true, &l.Phys},
		{"virt", true, &l.Virt},
		{"pctcpu", false, &l.PctCPU},
		{"blockio", false, &l.BlockIO},
		{"threads", false, &l.Threads},
		{"procs", false, &l.Procs},
	}
}

// ParseLimits reads a list of resource:soft:hard, as in "phys:1G:2G,procs:0:100".
func ParseLimits(s string) (Limits, error) {
	var limits Limits
	_, err := list(codec[string]{
		parse:  func(one string) (string, error) { return limits.parse(one) },
		format: same,
	}).parse(s)
	return limits, err
}

// parse sets one limit and returns the resource's name.
func (l *Limits) parse(s string) (string, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return "", fault("%s is not resource:soft:hard", shown(s)).hint("0 is no limit, as in phys:0:1G")
	}
	var names []string
	for _, limit := range l.All() {
		names = append(names, limit.Resource)
		if !strings.EqualFold(parts[0], limit.Resource) {
			continue
		}
		read := count
		if limit.Bytes {
			read = size
		}
		var err error
		if limit.Soft, err = read(parts[1]); err != nil {
			return "", err
		}
		if limit.Hard, err = read(parts[2]); err != nil {
			return "", err
		}
		if limit.Hard != 0 && limit.Soft > limit.Hard {
			return "", fault("%s: the soft limit is above the hard limit", shown(s))
		}
		return limit.Resource, nil
	}
	e := fault("unknown resource %s", shown(parts[0])).hint("one of %s", strings.Join(names, " "))
	return "", e.didYouMean(parts[0], names)
}

// String returns the limits in the form that [ParseLimits] reads; "" if there are none.
func (l Limits) String() string {
	var parts []string
	for _, limit := range l.All() {
		if *limit.Limit == (Limit{}) {
			continue
		}
		text := func(n uint64) string { return strconv.FormatUint(n, 10) }
		if limit.Bytes {
			text = sizeText
		}
		parts = append(parts, limit.Resource+":"+text(limit.Soft)+":"+text(limit.Hard))
	}
	return strings.Join(parts, ",")
}

// count reads a number without a unit.
func count(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fault("%s is no number", shown(s))
	}
	return n, nil
}

// units are those of sizes, each 1024 times the one before.
const units = "KMGT"

// size reads a number of bytes, with a unit or not.
func size(s string) (uint64, error) {
	digits, factor := s, uint64(1)
	if n := len(s) - 1; n >= 0 {
		if i := strings.IndexByte(units, strings.ToUpper(s)[n]); i >= 0 {
			digits, factor = s[:n], 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fault("%s is no size", shown(s)).hint("bytes, or a number with K, M, G or T")
	}
	high, n := bits.Mul64(n, factor)
	if high != 0 || n > math.MaxInt64 {
		return 0, fault("%s is too large", shown(s))
	}
	return n, nil
}

// sizeText writes a number of bytes with the largest unit of which it is a multiple.
func sizeText(n uint64) string {
	unit := ""
	for i := 0; i < len(units) && n != 0 && n%1024 == 0; i++ {
		n, unit = n/1024, units[i:i+1]
	}
	return strconv.FormatUint(n, 10) + unit
}
