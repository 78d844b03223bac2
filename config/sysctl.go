package config

import (
	"cmp"
	"slices"
	"strings"
)

// Sysctl is a kernel parameter of the instance's namespaces.
type Sysctl struct {
	Name  string // with dots, and slashes for dots inside a part: "net.ipv4.conf.eth0/1.forwarding"
	Value string
}

// Path returns the parameter's file below /proc/sys.
func (s Sysctl) Path() string { return swapSeparators.Replace(s.Name) }

var swapSeparators = strings.NewReplacer(".", "/", "/", ".")

// sysctls are the parameters that a network, ipc, uts or user namespace has of its own since long before Linux 6.1;
// those that end in a dot stand for all below. (kernel.pid_max is the host's before Linux 6.14.)
var sysctls = []string{
	"net.", "fs.mqueue.", "user.",
	"kernel.domainname",
	"kernel.msg_next_id", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni",
	"kernel.sem", "kernel.sem_next_id",
	"kernel.shm_next_id", "kernel.shm_rmid_forced", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
}

// parameter is the argument of SYSCTL_<name>: as sysctl.d(5) has it, the first separator, dot or slash, is the one
// between the parts, and the other one stands for itself.
func parameter(arg string) (string, error) {
	const most = 256
	name := arg
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		name = swapSeparators.Replace(name)
	}
	parts := strings.Split(Sysctl{Name: name}.Path(), "/")
	odd := func(part string) bool { return part == "" || part == "." || part == ".." }
	if len(arg) > most || !only(name, "-_./:@") || slices.ContainsFunc(parts, odd) {
		return arg, fault("%s is no kernel parameter", shown(arg)).hint("a name such as net.ipv4.ip_forward")
	}
	own := func(known string) bool {
		return name == known || strings.HasSuffix(known, ".") && strings.HasPrefix(name, known)
	}
	if !slices.ContainsFunc(sysctls, own) {
		return arg, fault("%s is not the instance's own, so it cannot be set for one", shown(arg)).hint(
			"net.*, fs.mqueue.*, user.* and some of kernel.* can: see vps.conf(5)")
	}
	return name, nil
}

var sysctl = access{
	set: func(c *Config, arg, value string) error {
		const most = 4096 // a page: what a file of /proc/sys takes
		if len(value) > most {
			return fault("a value of more than %d bytes", most)
		}
		if len(c.Sysctls) == maxList {
			return fault("more than %d kernel parameters", maxList)
		}
		s := Sysctl{Name: arg, Value: value}
		*insert(&c.Sysctls, s, func(a, b Sysctl) int { return cmp.Compare(a.Name, b.Name) }) = s
		return nil
	},
	get: func(c *Config) []assignment {
		var all []assignment
		for _, s := range c.Sysctls {
			all = append(all, assignment{s.Name, s.Value})
		}
		return all
	},
	reset: reset(func(c *Config) *[]Sysctl { return &c.Sysctls }),
}
