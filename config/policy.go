package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// RestartPolicy says when an instance whose init has ended is started again.
type RestartPolicy string

const (
	RestartNo        RestartPolicy = "no"
	RestartOnFailure RestartPolicy = "on-failure" // not after an exit status of 0, nor after poweroff
	RestartAlways    RestartPolicy = "always"     // unless stopped by command
)

// Restart is a policy with the number of times it is followed.
type Restart struct {
	Policy RestartPolicy
	Max    int // in a row; 0 for no bound
}

var restart = codec[Restart]{
	parse: func(s string) (r Restart, err error) {
		policy, most, bounded := strings.Cut(strings.ToLower(s), ":")
		r.Policy, err = oneOf(RestartNo, RestartOnFailure, RestartAlways).parse(policy)
		if err != nil || !bounded {
			return r, err
		}
		if r.Policy == RestartNo {
			return r, fault("%s: there is no number of times for no", shown(s))
		}
		r.Max, err = integer(1, 1_000_000).parse(most)
		return r, err
	},
	format: func(r Restart) string {
		if r.Max == 0 {
			return string(r.Policy)
		}
		return string(r.Policy) + ":" + strconv.Itoa(r.Max)
	},
}

// HostShutdown says what becomes of a running instance when its host goes down.
type HostShutdown string

const (
	ShutdownStop     HostShutdown = "stop"
	ShutdownSuspend  HostShutdown = "suspend"
	ShutdownSnapshot HostShutdown = "snapshot"
)

// oneOf is a word out of a few.
func oneOf[T ~string](words ...T) codec[T] {
	return codec[T]{
		parse: func(s string) (T, error) {
			var texts []string
			for _, w := range words {
				if strings.EqualFold(s, string(w)) {
					return w, nil
				}
				texts = append(texts, string(w))
			}
			e := fault("%s is not one of %s", shown(s), strings.Join(texts, " "))
			return "", e.didYouMean(s, texts)
		},
		format: func(w T) string { return string(w) },
	}
}

// UserNS says which of the host's ids are the instance's 0 to 65535. Its zero value leaves the choice to the host.
type UserNS struct {
	Host  bool   // no user namespace: the instance's ids are the host's
	First uint32 // the host's id of the instance's 0; 0 for a free range
}

const userNSRange = 65536

var userNS = codec[UserNS]{
	parse: func(s string) (UserNS, error) {
		words := []string{"auto", "host"}
		switch i := slices.Index(words, strings.ToLower(s)); i {
		case 0, 1:
			return UserNS{Host: i == 1}, nil
		}
		first, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			e := fault("%s is not auto, host or a number", shown(s))
			return UserNS{}, e.didYouMean(s, words)
		}
		// The last id, (uid_t)-1, is none: user_namespaces(7).
		if first < userNSRange || first > math.MaxUint32-userNSRange {
			return UserNS{}, fault("the first id %d is out of range", first).hint(
				"%d to %d; ids below are the host's own users", userNSRange, uint32(math.MaxUint32-userNSRange))
		}
		return UserNS{First: uint32(first)}, nil
	},
	format: func(u UserNS) string {
		switch {
		case u.Host:
			return "host"
		case u.First != 0:
			return strconv.FormatUint(uint64(u.First), 10)
		}
		return "auto"
	},
}
