// Package config reads and writes the configuration file of an instance, vps.conf(5).
//
// A file holds one NAME = value a line. Every key is one entry of a table (keys.go) that drives parsing,
// checking, writing and the listing of keys. A configuration also travels inside snapshot files, so its text is
// hostile input: all sizes are bounded, and [Config.DefaultRights] takes from it whatever would give its author
// something on the host.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Config is the configuration of one instance. Its zero value is not useful: start from [Default] or [Parse].
type Config struct {
	Name        string  // NAME
	Root        string  // FSROOT: the instance's root directory, on the host
	RootPriv    string  // FSROOT_PRIV: the directory below a stacked FSROOT; "" if there is none
	RootMount   string  // ROOT_MOUNT: shell command on the host before a start; "" for none
	RootUnmount string  // ROOT_UNMOUNT: shell command on the host after a stop; "" for none
	Mounts      []Mount // MOUNT_<n>, in order of n

	Init      []string // INIT: path inside the instance and its arguments
	Env       []string // ENV and ENV_<n>: init's environment, each "NAME=value", no name twice
	Hostname  string   // HOSTNAME: "" for one made of the name, see [Config.UTSName]
	MachineID string   // MACHINE_ID: 32 hexadecimal digits; "" leaves the instance's own
	Console   bool     // CONSOLE

	Interfaces      []Interface    // NETIF_<n>_*, in order of n
	Networks        []netip.Prefix // IP_NETWORKS: what the instance may configure besides its Interfaces' addresses
	DNS             []netip.Addr   // DNS: name servers
	NetworkAnnounce string         // NETWORK_ANNOUNCE: shell command on the host instead of the built-in way; "" for none
	NetworkRevoke   string         // NETWORK_REVOKE: likewise

	UserNS       UserNS   // USERNS
	PrivAllow    []string // PRIV_ALLOW: names are checked by whoever knows the privileges
	PrivDeny     []string // PRIV_DENY
	PrivNosys    []string // PRIV_NOSYS
	DevfsRuleset string   // DEVFS_RULESET: name of a ruleset; "" for the default one
	Limits       Limits   // LIMITS
	Rlimits      []Rlimit // RLIMIT_<resource>, in order of name
	Sysctls      []Sysctl // SYSCTL_<name>, in order of name

	Restart      Restart        // RESTART
	Autostart    bool           // AUTOSTART
	StartOrder   int            // START_ORDER: lower starts earlier and stops later
	HostShutdown HostShutdown   // HOST_SHUTDOWN
	StopSignal   syscall.Signal // STOP_SIGNAL: 0 for the one that init's program is known to want
	StopTimeout  time.Duration  // STOP_TIMEOUT: from the stop signal to SIGKILL

	file  string         // where it was read from, for messages
	lines map[string]int // the line of each key in that file
}

// Default returns the configuration of instance id before any key is set. The root directory has no default.
func Default(id string) *Config {
	return &Config{
		Name:         id,
		Init:         []string{"/sbin/init"},
		Console:      true,
		HostShutdown: ShutdownStop,
		Restart:      Restart{Policy: RestartNo},
		StopTimeout:  30 * time.Second,
	}
}

// FileName returns the base name of the configuration file of instance id.
func FileName(id string) string { return "vps_" + id + ".conf" }

// Load reads the configuration file at path. The error joins one [Error] for each fault in the file.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	return Parse(path, f)
}

// Validate checks a configuration as a whole: every field, the fields against each other, and that what has no
// default is there. The error joins one [Error] for each fault.
func (c *Config) Validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, c.Errorf("NAME", "required, but not set"))
	}
	if c.Root == "" {
		errs = append(errs, c.Errorf("FSROOT", "required, but not set"))
	}
	again := Default("")
	for _, k := range keys {
		for _, a := range k.get(c) {
			err := checkText(a.value)
			if err == nil {
				err = k.set(again, a.arg, a.value)
			}
			if err != nil {
				errs = append(errs, c.locate(k.with(a.arg), err))
			}
		}
	}
	return errors.Join(append(errs, c.clashes()...)...)
}

// With returns a copy in which a key has another value, written as in a file; with an empty one it has its default.
func (c *Config) With(key, value string) (*Config, error) {
	k, arg, err := lookup(key)
	if err == nil {
		err = checkText(value)
	}
	if err != nil {
		return nil, c.locate(key, err)
	}
	changed := Default("")
	for i := range keys {
		for _, a := range keys[i].get(c) {
			if &keys[i] == k && a.arg == arg {
				continue
			}
			if err := keys[i].set(changed, a.arg, a.value); err != nil {
				return nil, c.locate(keys[i].with(a.arg), err)
			}
		}
	}
	if value != "" {
		if err := k.set(changed, arg, value); err != nil {
			return nil, changed.locate(k.with(arg), err)
		}
	}
	return changed, errors.Join(changed.clashes()...)
}

// DefaultRights returns a copy without what would give the instance, or whoever wrote the configuration, anything
// on the host beyond the defaults: paths and commands of the host, networks, privileges, devices. It is how a
// configuration out of a snapshot file is used. The keys that were set and have been left out are named.
func (c *Config) DefaultRights() (safe *Config, dropped []string) {
	copied, defaults := *c, Default("")
	for _, k := range keys {
		set := k.get(c)
		if !k.host || slices.Equal(set, k.get(defaults)) {
			continue
		}
		for _, a := range set {
			dropped = append(dropped, k.with(a.arg))
		}
	}
	for _, k := range keys {
		if k.host {
			k.reset(&copied)
		}
	}
	return &copied, dropped
}

// UTSName returns the instance's node name, uname(2): HOSTNAME, else the last part of its name.
func (c *Config) UTSName() string {
	if c.Hostname != "" {
		return c.Hostname
	}
	return c.Name[strings.LastIndexByte(c.Name, '.')+1:]
}

// Errorf makes an [Error] about a key, with the file and line where the key was set if it was.
func (c *Config) Errorf(key, format string, args ...any) *Error {
	return &Error{File: c.file, Line: c.lines[key], Key: key, Msg: fmt.Sprintf(format, args...)}
}

// locate makes err an Error at the key's place.
func (c *Config) locate(key string, err error) *Error {
	e := c.Errorf(key, "%v", err)
	if fault, ok := errors.AsType[*Error](err); ok {
		e.Msg, e.Hint = fault.Msg, fault.Hint
	}
	return e
}

// clashes finds what is wrong between keys that are each right.
func (c *Config) clashes() []error {
	var errs []error
	seen := make(map[string]string)
	once := func(key, kind, what string) {
		if first, ok := seen[kind+what]; ok && first != key {
			errs = append(errs, c.Errorf(key, "%s %s is in %s too", kind, what, first))
			return
		}
		seen[kind+what] = key
	}
	for _, m := range c.Mounts {
		once(fmt.Sprintf("MOUNT_%d", m.N), "target", m.Target)
	}
	for _, i := range c.Interfaces {
		once(fmt.Sprintf("NETIF_%d_IFIDX", i.N), "interface", i.Name())
		for _, a := range i.Addresses {
			once(fmt.Sprintf("NETIF_%d_ADDRESS", i.N), "address", a.String())
		}
	}
	for _, i := range c.Interfaces {
		for _, f := range i.Forwards {
			key := fmt.Sprintf("NETIF_%d_FORWARD", i.N)
			once(key, "port", fmt.Sprintf("%s %v %d", f.Protocol, f.Host, f.Port))
			if !slices.ContainsFunc(i.Addresses, func(a netip.Addr) bool { return !f.Host.IsValid() || a.Is4() == f.Host.Is4() }) {
				errs = append(errs, c.Errorf(key, "the interface has no address that %v could lead to", f))
			}
		}
	}
	for _, list := range []struct {
		key   string
		names []string
	}{{"PRIV_ALLOW", c.PrivAllow}, {"PRIV_DENY", c.PrivDeny}, {"PRIV_NOSYS", c.PrivNosys}} {
		for _, name := range list.names {
			once(list.key, "privilege", strings.ToUpper(name))
		}
	}
	for _, s := range c.Sysctls {
		if c.UserNS.Host && strings.HasPrefix(s.Name, "user.") {
			errs = append(errs, c.Errorf("SYSCTL_"+s.Name, "with USERNS = host this is the host's own parameter"))
		}
	}
	return errs
}
