package config

import (
	"net/netip"
	"syscall"
	"time"
)

// keys is the table of all keys, in the order in which they are written.
var keys = []key{
	{
		name: "NAME", value: "name",
		doc:    "name of the instance; one given on the command line wins",
		access: field(func(c *Config) *string { return &c.Name }, instance),
	},
	{
		name: "FSROOT", value: "directory", host: true,
		doc:    "root directory of the instance, on the host",
		access: field(func(c *Config) *string { return &c.Root }, directory),
	},
	{
		name: "FSROOT_PRIV", value: "directory", host: true,
		doc:    "directory below FSROOT where that is a stacked file system; a move carries this one",
		access: field(func(c *Config) *string { return &c.RootPriv }, directory),
	},
	{
		name: "ROOT_MOUNT", value: "command", host: true,
		doc:    "shell command run on the host before a start",
		access: field(func(c *Config) *string { return &c.RootMount }, command),
	},
	{
		name: "ROOT_UNMOUNT", value: "command", host: true,
		doc:    "shell command run on the host after a stop",
		access: field(func(c *Config) *string { return &c.RootUnmount }, command),
	},
	{
		name: "MOUNT_<n>", value: "source target [ro] | tmpfs target [ro] [size=bytes]", host: true,
		doc:      "volume: a file or directory of the host, or memory, mounted inside",
		argument: number, access: mount,
	},
	{
		name: "INIT", value: "path [argument ...]",
		doc:    "program run as process 1",
		access: field(func(c *Config) *[]string { return &c.Init }, program),
	},
	{
		name: "ENV", value: "name=value ...",
		doc:    "variables of init's environment",
		access: environment,
	},
	{
		name: "ENV_<n>", value: "name=value",
		doc:      "one variable, its value taken as it stands",
		argument: number, access: variable,
	},
	{
		name: "HOSTNAME", value: "name",
		doc:    "node name; by default the last part of the instance's name",
		access: field(func(c *Config) *string { return &c.Hostname }, hostname),
	},
	{
		name: "MACHINE_ID", value: "id",
		doc:    "what the instance sees as machine-id(5); by default what is in its file system",
		access: field(func(c *Config) *string { return &c.MachineID }, machineID),
	},
	{
		name: "CONSOLE", value: "yes | no",
		doc:    "whether the instance has a console, kept with its history",
		access: field(func(c *Config) *bool { return &c.Console }, yesNo),
	},
	{
		name: "NETIF_<n>_ADDRESS", value: "address,...", host: true,
		doc:      "interface at the layer-3 switch, and its addresses",
		argument: number,
		access: ofInterface(func(i *Interface) *[]netip.Addr { return &i.Addresses }, list(hostAddress),
			func(i Interface) bool { return len(i.Addresses) > 0 }),
	},
	{
		name: "NETIF_<n>_IFIDX", value: "number", host: true,
		doc:      "number in the interface's name inside, if not n",
		argument: number,
		access: ofInterface(func(i *Interface) *int { return &i.Unit }, integer(0, 65535),
			func(i Interface) bool { return i.Unit != i.N || len(i.Addresses) == 0 }),
	},
	{
		name: "NETIF_<n>_NAT", value: "yes | no", host: true,
		doc:      "whether what leaves the host has the host's address as its source",
		argument: number,
		access:   ofInterface(func(i *Interface) *bool { return &i.NAT }, yesNo, func(i Interface) bool { return i.NAT }),
	},
	{
		name: "NETIF_<n>_FORWARD", value: "[tcp:|udp:][address:]port:port,...", host: true,
		doc:      "ports of the host that lead to ports of the interface's first address",
		argument: number,
		access: ofInterface(func(i *Interface) *[]Forward { return &i.Forwards }, list(forward),
			func(i Interface) bool { return len(i.Forwards) > 0 }),
	},
	{
		name: "NETIF_<n>_BANDWIDTH", value: "rate[:rate]", host: true,
		doc:      "bits per second to the instance, and from it if that is another rate",
		argument: number,
		access: ofInterface(func(i *Interface) *Bandwidth { return &i.Bandwidth }, bandwidth,
			func(i Interface) bool { return i.Bandwidth != Bandwidth{} }),
	},
	{
		name: "IP_NETWORKS", value: "network,...", host: true,
		doc:    "networks whose addresses the instance may configure, besides those of its interfaces",
		access: field(func(c *Config) *[]netip.Prefix { return &c.Networks }, list(network)),
	},
	{
		name: "DNS", value: "address,...",
		doc:    "name servers for resolv.conf(5)",
		access: field(func(c *Config) *[]netip.Addr { return &c.DNS }, list(address)),
	},
	{
		name: "NETWORK_ANNOUNCE", value: "command", host: true,
		doc:    "shell command run on the host to announce the addresses, instead of the built-in way",
		access: field(func(c *Config) *string { return &c.NetworkAnnounce }, command),
	},
	{
		name: "NETWORK_REVOKE", value: "command", host: true,
		doc:    "shell command run on the host to take the announcement back",
		access: field(func(c *Config) *string { return &c.NetworkRevoke }, command),
	},
	{
		name: "USERNS", value: "auto | host | first-id", host: true,
		doc:    "which of the host's users the instance's are",
		access: field(func(c *Config) *UserNS { return &c.UserNS }, userNS),
	},
	{
		name: "PRIV_ALLOW", value: "privilege,...", host: true,
		doc:    "privileges granted on top of the default set",
		access: field(func(c *Config) *[]string { return &c.PrivAllow }, list(word)),
	},
	{
		name: "PRIV_DENY", value: "privilege,...",
		doc:    "privileges refused with EPERM",
		access: field(func(c *Config) *[]string { return &c.PrivDeny }, list(word)),
	},
	{
		name: "PRIV_NOSYS", value: "privilege,...",
		doc:    "privileges absent, with ENOSYS",
		access: field(func(c *Config) *[]string { return &c.PrivNosys }, list(word)),
	},
	{
		name: "DEVFS_RULESET", value: "name", host: true,
		doc:    "ruleset that says which device nodes there are",
		access: field(func(c *Config) *string { return &c.DevfsRuleset }, word),
	},
	{
		name: "LIMITS", value: "resource:soft:hard,...",
		doc:    "limits of phys, virt, pctcpu, blockio, threads and procs",
		access: field(func(c *Config) *Limits { return &c.Limits }, codec[Limits]{ParseLimits, Limits.String}),
	},
	{
		name: "RLIMIT_<resource>", value: "soft[:hard]", host: true,
		doc:      "resource limit of init, setrlimit(2)",
		argument: resource, access: rlimit,
	},
	{
		name: "SYSCTL_<name>", value: "value", host: true,
		doc:      "kernel parameter of the instance's namespaces, sysctl(8)",
		argument: parameter, access: sysctl,
	},
	{
		name: "RESTART", value: "no | on-failure[:max] | always[:max]",
		doc:    "whether to start again when init has ended",
		access: field(func(c *Config) *Restart { return &c.Restart }, restart),
	},
	{
		name: "AUTOSTART", value: "yes | no",
		doc:    "whether to start with the host",
		access: field(func(c *Config) *bool { return &c.Autostart }, yesNo),
	},
	{
		name: "START_ORDER", value: "number",
		doc:    "place among those that start with the host: lower ones earlier",
		access: field(func(c *Config) *int { return &c.StartOrder }, integer(-1_000_000, 1_000_000)),
	},
	{
		name: "HOST_SHUTDOWN", value: "stop | suspend | snapshot",
		doc:    "what happens to the instance when the host goes down",
		access: field(func(c *Config) *HostShutdown { return &c.HostShutdown }, oneOf(ShutdownStop, ShutdownSuspend, ShutdownSnapshot)),
	},
	{
		name: "STOP_SIGNAL", value: "signal",
		doc:    "signal that tells init to shut down; by default the one its program is known to want",
		access: field(func(c *Config) *syscall.Signal { return &c.StopSignal }, codec[syscall.Signal]{ParseSignal, SignalName}),
	},
	{
		name: "STOP_TIMEOUT", value: "time",
		doc:    "how long init may take to shut down before it is killed",
		access: field(func(c *Config) *time.Duration { return &c.StopTimeout }, duration),
	},
}
