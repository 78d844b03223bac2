package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Forward is a port of the host's that leads into an instance.
type Forward struct {
	Protocol string     // "tcp", "udp"
	Host     netip.Addr // an address of the host's; zero: any
	Port     uint16     // there
	Inside   uint16
}

// String is the forward as in a file.
func (f Forward) String() string {
	host := ""
	switch {
	case f.Host.Is6():
		host = "[" + f.Host.String() + "]:"
	case f.Host.IsValid():
		host = f.Host.String() + ":"
	}
	return fmt.Sprintf("%s:%s%d:%d", f.Protocol, host, f.Port, f.Inside)
}

var forward = codec[Forward]{
	parse: func(s string) (f Forward, err error) {
		wrong := fault("%s forwards no port", shown(s)).hint("as in 8080:80, udp:53:53, 192.0.2.1:443:443, [2001:db8::1]:443:443")
		f.Protocol = "tcp"
		rest := s
		if before, after, _ := strings.Cut(s, ":"); strings.EqualFold(before, "tcp") || strings.EqualFold(before, "udp") {
			f.Protocol, rest = strings.ToLower(before), after
		}
		at := strings.LastIndexByte(rest, ':')
		if at < 0 {
			return f, wrong
		}
		outer := rest[:at]
		if f.Inside, err = port(rest[at+1:]); err != nil {
			return f, wrong
		}
		if at = strings.LastIndexByte(outer, ':'); at >= 0 {
			host := outer[:at]
			if inner, ok := strings.CutPrefix(host, "["); ok {
				host, _ = strings.CutSuffix(inner, "]")
			}
			if f.Host, err = hostAddress.parse(host); err != nil {
				return f, err
			}
			outer = outer[at+1:]
		}
		if f.Port, err = port(outer); err != nil {
			return f, wrong
		}
		return f, nil
	},
	format: Forward.String,
}

func port(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return uint16(n), err
}

// Bandwidth is bits per second; 0: no limit.
type Bandwidth struct{ In, Out uint64 }

var bandwidth = codec[Bandwidth]{
	parse: func(s string) (b Bandwidth, err error) {
		in, out, both := strings.Cut(s, ":")
		if b.In, err = rate(in); err != nil {
			return b, err
		}
		b.Out = b.In
		if both {
			b.Out, err = rate(out)
		}
		return b, err
	},
	format: func(b Bandwidth) string {
		if b.In == b.Out {
			return formatRate(b.In)
		}
		return formatRate(b.In) + ":" + formatRate(b.Out)
	},
}

const rateUnits = "KMGT" // powers of 1000

// rate is a number of bits per second, with a unit perhaps. 0 is none.
func rate(s string) (uint64, error) {
	const least, most = 8000, 1e12
	digits, factor := s, uint64(1)
	if n := len(s) - 1; n > 0 {
		if unit := strings.IndexByte(rateUnits, s[n]&^0x20); unit >= 0 {
			digits = s[:n]
			for range unit + 1 {
				factor *= 1000
			}
		}
	}
	n, err := strconv.ParseUint(digits, 10, 40)
	if err != nil || n > most/factor || n != 0 && n*factor < least {
		return 0, fault("%s is no rate", shown(s)).hint("bits per second from 8K to 1T, as in 500M or 1G; 0 for no limit")
	}
	return n * factor, nil
}

func formatRate(n uint64) string {
	unit := ""
	for _, u := range rateUnits {
		if n == 0 || n%1000 != 0 {
			break
		}
		n, unit = n/1000, string(u)
	}
	return strconv.FormatUint(n, 10) + unit
}
