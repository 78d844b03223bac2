// Package probe tells what of the kernel and of the machine is there to be used, by trying it.
//
// The table is the one place that knows what each feature is for: nothing else compares kernel versions or user ids.
// A probe changes nothing that lasts.
package probe

import (
	"context"
	"fmt"
)

// Result says whether one feature is there.
type Result struct {
	Name  string
	Since string // first kernel version that has it; "" for what is not a matter of versions
	Cost  string // what its lack costs
	Need  bool   // nothing works without it
	Err   error  // why it cannot be used; nil if it can
}

// entry is a feature and the way to try it.
type entry struct {
	name, since string
	need        bool
	try         func(*machine) error
	cost        string
}

// machine is what probes need of the host.
type machine struct {
	state string // state directory: its file system is the one that matters
	child *child // a process in a user namespace of its own
}

const (
	needed = true
	useful = false
)

var table = []entry{
	{"Linux 6.1", "6.1", needed, kernelVersion, "older kernels are not supported"},
	{"user namespaces", "3.8", useful, userNamespaces, "instances need USERNS=host: root inside is root of the host, bounded by its privileges only"},
	{"time namespaces", "5.6", useful, namespace("time"), "after a restore MONOTONIC and BOOTTIME of an instance jump to those of the host"},
	{"clone3 set_tid", "5.5", needed, cloneSetTid, "processes cannot be given their pids: no restore"},
	{"pidfd_getfd", "5.6", needed, pidfdGetfd, "descriptors cannot be read from outside: no start, no snapshot"},
	{"memfd that executes", "3.17", needed, memfdExec, "the stub cannot be started; see sysctl vm.memfd_noexec"},
	{"kcmp", "3.5", needed, kcmp, "shared descriptors are not recognized: no snapshot"},
	{"checkpoint support", "3.5", needed, checkpointRestore, "CONFIG_CHECKPOINT_RESTORE: memory layout and seccomp filters cannot be read or set: no snapshot, no restore"},
	{"rseq configuration", "5.13", useful, rseq, "instances whose C library uses restartable sequences cannot be restored"},
	{"seccomp filters", "3.17", needed, seccompFilters, "privileges cannot be enforced"},
	{"cgroup.freeze, cgroup.kill", "5.14", needed, cgroupFiles, "no suspend, and no sure stop"},
	{"memory limits", "", useful, controller("memory"), "LIMITS phys has no effect"},
	{"process limits", "", useful, controller("pids"), "LIMITS procs has no effect: a fork bomb inside takes the host"},
	{"id-mapped mounts", "5.12", useful, idmappedMounts, "files of an instance need to be owned by its ids on disk, or USERNS=host"},
	{"userfaultfd", "4.3", useful, userfaultfd(0), "no lazy restore, and a full one takes twice as long to fill memory"},
	{"/dev/userfaultfd", "6.1", useful, userfaultDevice, "no lazy restore"},
	{"userfaultfd POISON", "6.6", useful, userfaultfd(poison), "a lazily restored instance is killed when a page of it cannot be read"},
	{"userfaultfd WP_ASYNC", "6.7", useful, userfaultfd(wpAsync), "memory is copied while frozen, not before"},
	{"PAGEMAP_SCAN", "6.7", useful, pagemapScan, "present pages are found by reading /proc/PID/pagemap: slower snapshots of large memories"},
	{"BPF task iterator", "5.8", useful, bpfIterator, "an interrupted sleep begins again after a restore, instead of sleeping its remaining time"},
	{"unix_diag", "3.3", useful, unixDiag, "instances with Unix sockets cannot be snapshotted"},
	{"tcx", "6.6", useful, tcx, "instances have no interface at the switch (NETIF_n_ADDRESS), only those that ifmove gives them"},
	{"TCP_REPAIR", "3.5", useful, tcpRepair, "TCP connections cannot be kept"},
	{"CAP_SYS_ADMIN", "", needed, capability("SYS_ADMIN"), "nothing works"},
	{"CAP_SYS_PTRACE", "", needed, capability("SYS_PTRACE"), "no start, no snapshot"},
	{"CAP_NET_ADMIN", "", needed, capability("NET_ADMIN"), "instances have no network"},
	{"CAP_MKNOD", "", useful, capability("MKNOD"), "devices are bound from the host's /dev"},
	{"CAP_SYS_RESOURCE", "", useful, capability("SYS_RESOURCE"), "instances cannot have resource limits above the daemon's; restore of such needs --force and lowers them"},
	{"CAP_CHECKPOINT_RESTORE", "5.9", useful, capability("CHECKPOINT_RESTORE"), "pids are set with CAP_SYS_ADMIN instead"},
}

// All tries every feature. state is the host's state directory, whose file system counts; it has to exist.
func All(ctx context.Context, state string) []Result {
	m := &machine{state: state}
	m.child, _ = newChild(ctx)
	defer m.child.end()
	results := make([]Result, 0, len(table))
	for _, e := range table {
		r := Result{Name: e.name, Since: e.since, Cost: e.cost, Need: e.need, Err: ctx.Err()}
		if r.Err == nil {
			r.Err = e.try(m)
		}
		results = append(results, r)
	}
	return results
}

// Missing returns an error that names what is needed and not there, or nil.
func Missing(results []Result) error {
	for _, r := range results {
		if r.Need && r.Err != nil {
			return fmt.Errorf("%s: %w (%s)", r.Name, r.Err, r.Cost)
		}
	}
	return nil
}
