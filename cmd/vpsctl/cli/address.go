package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"vps/dump/convert"
)

// Addresses reads values of --readdress, OLD=NEW each.
func Addresses(values []string) (convert.Addresses, error) {
	if len(values) == 0 {
		return nil, nil
	}
	all := make(convert.Addresses)
	for _, v := range values {
		from, to, _ := strings.Cut(v, "=")
		old, err := netip.ParseAddr(from)
		if err != nil {
			return nil, fmt.Errorf("--readdress %q: want OLD=NEW: %w", v, err)
		}
		if _, twice := all[old]; twice {
			return nil, fmt.Errorf("--readdress %q: %v has another one already", v, old)
		}
		if all[old], err = netip.ParseAddr(to); err != nil {
			return nil, fmt.Errorf("--readdress %q: want OLD=NEW: %w", v, err)
		}
	}
	if err := all.Check(); err != nil {
		return nil, fmt.Errorf("--readdress: %w", err)
	}
	return all, nil
}
