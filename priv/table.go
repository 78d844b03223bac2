package priv

import (
	"strings"

	"golang.org/x/sys/unix"
)

// A privilege is a capability, with the system calls that it alone gates, or a
// class of system calls. isolated and shared are its default states with and
// without a user namespace of the instance's own.
type privilege struct {
	name             string
	isolated, shared State
	about            string
	capability       int // for names that begin with CAP_: its number
	calls            []call
	needs            []string // of a class: capabilities that its calls need
	aliases          []string // other names, without PRIV_
}

func (p privilege) isCapability() bool { return strings.HasPrefix(p.name, "CAP_") }

// A call is a system call, or the use of one with certain arguments.
type call struct {
	number uint32
	when   *condition // nil: always
	absent bool       // refused with ENOSYS where others get EPERM
}

// A condition looks at the low half of an argument, and holds if any bit of
// mask is set, or, without a mask, if it equals value.
type condition struct {
	arg         uint32
	mask, value uint32
}

func calls(numbers ...uint32) []call {
	list := make([]call, len(numbers))
	for i, n := range numbers {
		list[i].number = n
	}
	return list
}

const newNamespace = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// The table of privileges. The defaults with a user namespace are those under
// which a distribution's systemd runs unchanged (systemd-nspawn(1),
// --capability=): what the kernel checks against the instance's own namespaces
// is kept; what it checks against the host's is dropped even where it would be
// refused anyway, since units ask ConditionCapability=. The defaults without
// one are Docker's and CAP_SYS_BOOT, with which an init can end its instance;
// systemd as init needs PRIV_ALLOW=SYS_ADMIN then, and can harm the host.
//
// Of the classes, what administers the host is denied; what programs probe for
// and do without, and a snapshot could not hold, is absent.
var table = [...]privilege{
	{name: "CAP_CHOWN", capability: unix.CAP_CHOWN, isolated: Allow, shared: Allow,
		about: "change owners of files", aliases: []string{"VFS_CHOWN"}},
	{name: "CAP_DAC_OVERRIDE", capability: unix.CAP_DAC_OVERRIDE, isolated: Allow, shared: Allow,
		about: "pass file permissions", aliases: []string{"VFS_WRITE", "VFS_EXEC"}},
	{name: "CAP_DAC_READ_SEARCH", capability: unix.CAP_DAC_READ_SEARCH, isolated: Allow,
		about: "pass permissions to read and search", aliases: []string{"VFS_READ", "VFS_LOOKUP"}},
	{name: "CAP_FOWNER", capability: unix.CAP_FOWNER, isolated: Allow, shared: Allow,
		about: "act as owner of any file", aliases: []string{"VFS_ADMIN", "VFS_STICKYFILE"}},
	{name: "CAP_FSETID", capability: unix.CAP_FSETID, isolated: Allow, shared: Allow,
		about: "keep set-id bits on write and chown", aliases: []string{"VFS_RETAINSUGID", "VFS_SETGID"}},
	{name: "CAP_KILL", capability: unix.CAP_KILL, isolated: Allow, shared: Allow,
		about: "signal any process", aliases: []string{"SIGNAL_DIFFCRED", "SIGNAL_SUGID"}},
	{name: "CAP_SETGID", capability: unix.CAP_SETGID, isolated: Allow, shared: Allow,
		about: "change group ids", aliases: []string{"CRED_SETGID", "CRED_SETEGID", "CRED_SETGROUPS", "CRED_SETREGID", "CRED_SETRESGID"}},
	{name: "CAP_SETUID", capability: unix.CAP_SETUID, isolated: Allow, shared: Allow,
		about: "change user ids", aliases: []string{"CRED_SETUID", "CRED_SETEUID", "CRED_SETREUID", "CRED_SETRESUID"}},
	{name: "CAP_SETPCAP", capability: unix.CAP_SETPCAP, isolated: Allow, shared: Allow,
		about: "drop and pass on capabilities"},
	{name: "CAP_LINUX_IMMUTABLE", capability: unix.CAP_LINUX_IMMUTABLE, isolated: Allow,
		about: "change immutable and append-only marks", aliases: []string{"VFS_SYSFLAGS"}},
	{name: "CAP_NET_BIND_SERVICE", capability: unix.CAP_NET_BIND_SERVICE, isolated: Allow, shared: Allow,
		about: "bind ports below 1024", aliases: []string{"NETINET_RESERVEDPORT"}},
	{name: "CAP_NET_BROADCAST", capability: unix.CAP_NET_BROADCAST, isolated: Allow,
		about: "broadcast (unused by the kernel)"},
	{name: "CAP_NET_ADMIN", capability: unix.CAP_NET_ADMIN, isolated: Allow,
		about: "configure the instance's network",
		aliases: []string{"NET_BRIDGE", "NET_GRE", "NET_ROUTE", "NET_TAP", "NET_SETIFMTU", "NET_SETIFFLAGS", "NET_SETIFCAP",
			"NET_SETIFNAME", "NET_SETIFMETRIC", "NET_SETIFPHYS", "NET_SETIFMAC", "NET_ADDMULTI", "NET_DELMULTI", "NET_HWIOCTL",
			"NET_SETLLADDR", "NET_ADDIFGROUP", "NET_DELIFGROUP", "NET_IFCREATE", "NET_IFDESTROY", "NET_ADDIFADDR", "NET_DELIFADDR", "NET_LAGG"}},
	{name: "CAP_NET_RAW", capability: unix.CAP_NET_RAW, isolated: Allow, shared: Allow,
		about: "raw and packet sockets", aliases: []string{"NETINET_RAW", "NETINET_SETHDROPTS", "NET_BPF"}},
	{name: "CAP_IPC_LOCK", capability: unix.CAP_IPC_LOCK,
		about: "lock memory without limit", aliases: []string{"VM_MLOCK", "VM_MUNLOCK"}},
	{name: "CAP_IPC_OWNER", capability: unix.CAP_IPC_OWNER, isolated: Allow,
		about: "pass permissions of System V IPC", aliases: []string{"IPC_READ", "IPC_WRITE", "IPC_ADMIN", "MQ_ADMIN"}},
	{name: "CAP_SYS_MODULE", capability: unix.CAP_SYS_MODULE,
		about: "load and unload kernel modules", aliases: []string{"KLD_LOAD", "KLD_UNLOAD"},
		calls: calls(unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE)},
	{name: "CAP_SYS_RAWIO", capability: unix.CAP_SYS_RAWIO,
		about: "reach I/O ports and raw devices", aliases: []string{"IO"},
		calls: calls(unix.SYS_IOPL, unix.SYS_IOPERM)},
	{name: "CAP_SYS_CHROOT", capability: unix.CAP_SYS_CHROOT, isolated: Allow, shared: Allow,
		about: "change the root directory", aliases: []string{"VFS_CHROOT", "VFS_FCHROOT"}},
	{name: "CAP_SYS_PTRACE", capability: unix.CAP_SYS_PTRACE, isolated: Allow,
		about: "trace any process", aliases: []string{"DEBUG_DIFFCRED", "DEBUG_SUGID"}},
	{name: "CAP_SYS_PACCT", capability: unix.CAP_SYS_PACCT,
		about: "process accounting", aliases: []string{"ACCT"}, calls: calls(unix.SYS_ACCT)},
	{name: "CAP_SYS_ADMIN", capability: unix.CAP_SYS_ADMIN, isolated: Allow,
		about: "mount, make namespaces, and much else"},
	{name: "CAP_SYS_BOOT", capability: unix.CAP_SYS_BOOT, isolated: Allow, shared: Allow,
		about: "restart or end the instance", aliases: []string{"REBOOT"}, calls: calls(unix.SYS_REBOOT)},
	{name: "CAP_SYS_NICE", capability: unix.CAP_SYS_NICE, isolated: Allow,
		about: "raise priorities", aliases: []string{"SCHED_DIFFCRED", "SCHED_CPUSET", "SCHED_SETPRIORITY"}},
	{name: "CAP_SYS_RESOURCE", capability: unix.CAP_SYS_RESOURCE, isolated: Allow,
		about: "pass and raise resource limits", aliases: []string{"PROC_LIMIT", "PROC_SETRLIMIT", "VFS_BLOCKRESERVE", "IPC_MSGSIZE"}},
	// adjtimex(2) and clock_adjtime(2) read, too: the kernel's check suffices.
	{name: "CAP_SYS_TIME", capability: unix.CAP_SYS_TIME,
		about: "set the host's clock", aliases: []string{"CLOCK", "SETTIMEOFDAY", "CLOCK_SETTIME", "ADJTIME", "NTP_ADJTIME"},
		calls: calls(unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME)},
	{name: "CAP_SYS_TTY_CONFIG", capability: unix.CAP_SYS_TTY_CONFIG, isolated: Allow,
		about: "hang up and configure terminals"},
	{name: "CAP_MKNOD", capability: unix.CAP_MKNOD, isolated: Allow, shared: Allow,
		about: "make device nodes that the ruleset allows"},
	{name: "CAP_LEASE", capability: unix.CAP_LEASE, isolated: Allow, about: "leases on any file"},
	{name: "CAP_AUDIT_WRITE", capability: unix.CAP_AUDIT_WRITE, isolated: Allow, shared: Allow,
		about: "write audit records", aliases: []string{"AUDIT_SUBMIT"}},
	{name: "CAP_AUDIT_CONTROL", capability: unix.CAP_AUDIT_CONTROL, isolated: Allow,
		about: "configure auditing", aliases: []string{"AUDIT_FAILSTOP", "AUDIT_SETAUDIT"}},
	{name: "CAP_SETFCAP", capability: unix.CAP_SETFCAP, isolated: Allow, shared: Allow,
		about: "give capabilities to files"},
	{name: "CAP_MAC_OVERRIDE", capability: unix.CAP_MAC_OVERRIDE, about: "pass mandatory access control"},
	{name: "CAP_MAC_ADMIN", capability: unix.CAP_MAC_ADMIN, about: "configure mandatory access control"},
	{name: "CAP_SYSLOG", capability: unix.CAP_SYSLOG,
		about: "the host's kernel log", aliases: []string{"MSGBUF"}, calls: calls(unix.SYS_SYSLOG)},
	{name: "CAP_WAKE_ALARM", capability: unix.CAP_WAKE_ALARM, about: "wake the host"},
	{name: "CAP_BLOCK_SUSPEND", capability: unix.CAP_BLOCK_SUSPEND, about: "keep the host awake"},
	{name: "CAP_AUDIT_READ", capability: unix.CAP_AUDIT_READ,
		about: "read the audit log", aliases: []string{"AUDIT_GETAUDIT"}},
	{name: "CAP_PERFMON", capability: unix.CAP_PERFMON, isolated: Nosys, shared: Nosys,
		about: "performance counters (a snapshot cannot hold them)", aliases: []string{"PERF", "PMC_SYSTEM", "PMC_MANAGE"},
		calls: calls(unix.SYS_PERF_EVENT_OPEN)},
	{name: "CAP_BPF", capability: unix.CAP_BPF, isolated: Nosys, shared: Nosys,
		about: "BPF programs and maps (a snapshot cannot hold them)", calls: calls(unix.SYS_BPF)},
	{name: "CAP_CHECKPOINT_RESTORE", capability: unix.CAP_CHECKPOINT_RESTORE, about: "choose pids, read others' memory maps"},

	// A handle may name a file outside of the instance's root.
	{name: "FHANDLE", about: "open files by handle",
		needs: []string{"DAC_READ_SEARCH"}, calls: calls(unix.SYS_OPEN_BY_HANDLE_AT), aliases: []string{"VFS_FHOPEN"}},
	{name: "IO_URING", isolated: Nosys, shared: Nosys, about: "io_uring (a snapshot cannot hold its rings)",
		calls: calls(unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER)},
	{name: "KEXEC", about: "boot another kernel",
		needs: []string{"SYS_BOOT"}, calls: calls(unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD)},
	// Keyrings are kept apart by user namespaces only.
	{name: "KEYRING", isolated: Allow, shared: Nosys, about: "kernel keyrings",
		calls: calls(unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL)},
	{name: "LANDLOCK", isolated: Nosys, shared: Nosys, about: "rules that a program makes for itself (a snapshot cannot hold them, and would lose them)",
		calls: calls(unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF)},
	{name: "LDT", isolated: Nosys, shared: Nosys, about: "local descriptor tables (a snapshot cannot hold them)",
		calls: calls(unix.SYS_MODIFY_LDT)},
	{name: "LEGACY", isolated: Nosys, shared: Nosys, about: "calls that were never made or are obsolete",
		calls: calls(unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS__SYSCTL, unix.SYS_CREATE_MODULE,
			unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE, unix.SYS_NFSSERVCTL, unix.SYS_GETPMSG, unix.SYS_PUTPMSG,
			unix.SYS_AFS_SYSCALL, unix.SYS_TUXCALL, unix.SYS_SECURITY, unix.SYS_SET_THREAD_AREA, unix.SYS_GET_THREAD_AREA,
			unix.SYS_LOOKUP_DCOOKIE, unix.SYS_EPOLL_CTL_OLD, unix.SYS_EPOLL_WAIT_OLD, unix.SYS_VSERVER)},
	{name: "MOUNT", isolated: Allow, shared: Allow, about: "mount and unmount",
		needs: []string{"SYS_ADMIN"},
		calls: calls(unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR,
			unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR),
		aliases: []string{"VFS_MOUNT", "VFS_MOUNT_NONUSER", "VFS_MOUNT_OWNER", "VFS_UNMOUNT"}},
	// A filter cannot read the flags of clone3(2), which are in memory; C
	// libraries fall back on clone(2) if it is absent.
	{name: "NAMESPACE", isolated: Allow, shared: Allow, about: "make and enter namespaces",
		needs: []string{"SYS_ADMIN"},
		calls: []call{
			{number: unix.SYS_CLONE, when: &condition{arg: 0, mask: newNamespace}},
			{number: unix.SYS_UNSHARE, when: &condition{arg: 0, mask: newNamespace | unix.CLONE_NEWTIME}},
			{number: unix.SYS_CLONE3, absent: true},
			{number: unix.SYS_SETNS},
		},
		aliases: []string{"JAIL_ATTACH", "JAIL_SET", "JAIL_REMOVE"}},
	{name: "NUMA", isolated: Nosys, shared: Nosys, about: "choose the memory nodes of pages (a snapshot cannot hold it, and would lose it)",
		calls: calls(unix.SYS_MBIND, unix.SYS_SET_MEMPOLICY, unix.SYS_SET_MEMPOLICY_HOME_NODE)},
	{name: "PTRACE", isolated: Allow, shared: Allow, about: "trace, read and write other processes",
		calls: calls(unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
			unix.SYS_KCMP, unix.SYS_PIDFD_GETFD),
		aliases: []string{"DEBUG_UNPRIV", "KTRACE"}},
	{name: "QUOTA", about: "disk quotas",
		needs: []string{"SYS_ADMIN"}, calls: calls(unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD),
		aliases: []string{"VFS_GETQUOTA", "VFS_SETQUOTA", "UFS_GETQUOTA", "UFS_SETQUOTA"}},
	{name: "SECRETMEM", isolated: Nosys, shared: Nosys, about: "memory that nobody else can read (nor a snapshot)",
		calls: calls(unix.SYS_MEMFD_SECRET)},
	{name: "SWAP", about: "swap space",
		needs: []string{"SYS_ADMIN"}, calls: calls(unix.SYS_SWAPON, unix.SYS_SWAPOFF), aliases: []string{"SWAPON", "SWAPOFF"}},
	{name: "USERFAULTFD", isolated: Nosys, shared: Nosys, about: "page faults handled by programs (a snapshot cannot hold them)",
		calls: calls(unix.SYS_USERFAULTFD)},
	// These sockets are in no namespace: they reach the hypervisor.
	{name: "VSOCK", about: "sockets to the hypervisor",
		calls: []call{{number: unix.SYS_SOCKET, when: &condition{arg: 0, value: unix.AF_VSOCK}}}},
}
