package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// everything sets every key there is.
const everything = `
# An instance with all keys.
name = web.build
FSROOT='/srv//web/'            # a comment
FsRoot_Priv = /srv/web_priv
ROOT_MOUNT = 'mount --bind "/srv/web_priv" /srv/web'
ROOT_UNMOUNT = "umount '/srv/web'"
MOUNT_10 = 'tmpfs /scratch size=65536K'
MOUNT_2 = '"/srv/my data" /data ro'
INIT = "/bin/sh -c \"echo \\\"it's\\\" up\" a\\ b"
ENV = 'LANG=C TERM="a b"'
ENV_7 = 'GREETING=it is "quoted" #1'
HOSTNAME = build.example.org
MACHINE_ID = 01234567-89AB-cdef-0123-456789abcdef
CONSOLE = no
NETIF_0_ADDRESS = '10.0.0.2, 2001:db8::2'
NETIF_0_IFIDX = 3
NETIF_0_NAT = yes
NETIF_0_FORWARD = 8080:80,udp:192.0.2.1:53:5353,TCP:[2001:db8::1]:443:8443
NETIF_0_BANDWIDTH = 1G:500m
NETIF_1_ADDRESS = 10.0.0.3
IP_NETWORKS = '192.168.123.231, 192.168.213.0/255.255.255.0 fc00::200:20,fc00::100:0/112'
DNS = 9.9.9.9,2620:fe::fe
NETWORK_ANNOUNCE = 'announce web'
NETWORK_REVOKE = 'revoke web'
USERNS = 200000
PRIV_ALLOW = sys_time,net_admin
PRIV_DENY = mknod
PRIV_NOSYS = keyctl
DEVFS_RULESET = desktop
LIMITS = 'phys:1G:1536M, virt:100000000:160000000,pctcpu:0:200,blockio:0:0,threads:12:12,procs:0:10'
RLIMIT_nofile = 1024:4096
RLIMIT_CORE = unlimited
RLIMIT_STACK = 8M:unlimited
SYSCTL_net.ipv4.ip_forward = 1
SYSCTL_net/ipv4/conf/eth0.5/forwarding = 0
SYSCTL_kernel.sem = '250 32000 32 128'
RESTART = on-failure:5
AUTOSTART = yes
START_ORDER = -5
HOST_SHUTDOWN = suspend
STOP_SIGNAL = rtmin+3
STOP_TIMEOUT = 1m30s
`

func want() *Config {
	return &Config{
		Name:        "web.build",
		Root:        "/srv/web",
		RootPriv:    "/srv/web_priv",
		RootMount:   `mount --bind "/srv/web_priv" /srv/web`,
		RootUnmount: "umount '/srv/web'",
		Mounts: []Mount{
			{N: 2, Source: "/srv/my data", Target: "/data", ReadOnly: true},
			{N: 10, Target: "/scratch", Size: 64 << 20},
		},
		Init:      []string{"/bin/sh", "-c", `echo "it's" up`, "a b"},
		Env:       []string{"LANG=C", "TERM=a b", `GREETING=it is "quoted" #1`},
		Hostname:  "build.example.org",
		MachineID: "0123456789abcdef0123456789abcdef",
		Interfaces: []Interface{
			{N: 0, Unit: 3, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2")}, NAT: true,
				Forwards: []Forward{
					{Protocol: "tcp", Port: 8080, Inside: 80},
					{Protocol: "udp", Host: netip.MustParseAddr("192.0.2.1"), Port: 53, Inside: 5353},
					{Protocol: "tcp", Host: netip.MustParseAddr("2001:db8::1"), Port: 443, Inside: 8443},
				},
				Bandwidth: Bandwidth{In: 1e9, Out: 5e8}},
			{N: 1, Unit: 1, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.3")}},
		},
		Networks: []netip.Prefix{
			netip.MustParsePrefix("192.168.123.231/32"), netip.MustParsePrefix("192.168.213.0/24"),
			netip.MustParsePrefix("fc00::200:20/128"), netip.MustParsePrefix("fc00::100:0/112"),
		},
		DNS:             []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2620:fe::fe")},
		NetworkAnnounce: "announce web",
		NetworkRevoke:   "revoke web",
		UserNS:          UserNS{First: 200000},
		PrivAllow:       []string{"sys_time", "net_admin"},
		PrivDeny:        []string{"mknod"},
		PrivNosys:       []string{"keyctl"},
		DevfsRuleset:    "desktop",
		Limits: Limits{
			Phys:    Limit{1 << 30, 1536 << 20},
			Virt:    Limit{100000000, 160000000},
			PctCPU:  Limit{0, 200},
			Threads: Limit{12, 12},
			Procs:   Limit{0, 10},
		},
		Rlimits: []Rlimit{
			{"CORE", unix.RLIMIT_CORE, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
			{"NOFILE", unix.RLIMIT_NOFILE, 1024, 4096},
			{"STACK", unix.RLIMIT_STACK, 8 << 20, unix.RLIM_INFINITY},
		},
		Sysctls: []Sysctl{
			{"kernel.sem", "250 32000 32 128"},
			{"net.ipv4.conf.eth0/5.forwarding", "0"},
			{"net.ipv4.ip_forward", "1"},
		},
		Restart:      Restart{RestartOnFailure, 5},
		Autostart:    true,
		StartOrder:   -5,
		HostShutdown: ShutdownSuspend,
		StopSignal:   37,
		StopTimeout:  90 * time.Second,
	}
}

func diff(a, b *Config) string {
	return cmp.Diff(a, b, cmpopts.IgnoreUnexported(Config{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("test.conf", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseEveryKey(t *testing.T) {
	c := parse(t, everything)
	if d := diff(want(), c); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	for _, k := range keys {
		if k.name != "ENV" && len(k.get(c)) == 0 {
			t.Errorf("%s is not tested", k.name)
		}
	}
}

func TestTextParsesToTheSame(t *testing.T) {
	for name, c := range map[string]*Config{"everything": parse(t, everything), "defaults": Default("web")} {
		again := parse(t, c.Text())
		if d := diff(c, again); d != "" {
			t.Errorf("%s: (-before +after)\n%s", name, d)
		}
		if again.Text() != c.Text() {
			t.Errorf("%s: a second writing differs:\n%s%s", name, c.Text(), again.Text())
		}
	}
}

func TestDefaults(t *testing.T) {
	c := parse(t, "NAME=web\nFSROOT=/srv/web\r\n")
	expected := Default("web")
	expected.Root = "/srv/web"
	if d := diff(expected, c); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := c.UTSName(); got != "web" {
		t.Errorf("UTSName() = %q", got)
	}
	c.Name = "web.build"
	if got := c.UTSName(); got != "build" {
		t.Errorf("UTSName() of web.build = %q", got)
	}
}

func TestValidateWantsNameAndRoot(t *testing.T) {
	err := parse(t, "INIT=/bin/init\n").Validate()
	if got := keysOf(err); !slices.Equal(got, []string{"NAME", "FSROOT"}) {
		t.Errorf("Validate() = %v", err)
	}
}

func TestValidateChecksFields(t *testing.T) {
	for _, test := range []struct {
		key   string
		spoil func(*Config)
	}{
		{"NAME", func(c *Config) { c.Name = "vps0" }},
		{"HOSTNAME", func(c *Config) { c.Hostname = "a\nPRIV_ALLOW=all" }},
		{"ROOT_MOUNT", func(c *Config) { c.RootMount = "true\nfalse" }},
		{"ENV_0", func(c *Config) { c.Env = []string{"no assignment"} }},
		{"RLIMIT_NOFILE", func(c *Config) { c.Rlimits = []Rlimit{{Name: "NOFILE", Soft: 2, Hard: 1}} }},
		{"MOUNT_1", func(c *Config) { c.Mounts = []Mount{{N: 0, Target: "/a"}, {N: 1, Target: "/a"}} }},
		{"PRIV_NOSYS", func(c *Config) { c.PrivAllow, c.PrivNosys = []string{"keyctl"}, []string{"KEYCTL"} }},
		{"NETIF_1_IFIDX", func(c *Config) { c.Interfaces = []Interface{{N: 0, Unit: 1}, {N: 1, Unit: 1}} }},
	} {
		c := Default("web")
		c.Root = "/srv/web"
		test.spoil(c)
		if got := keysOf(c.Validate()); !slices.Equal(got, []string{test.key}) {
			t.Errorf("errors of %v, want %s: %v", got, test.key, c.Validate())
		}
	}
}

func keysOf(err error) []string {
	var names []string
	for _, e := range Errors(err) {
		names = append(names, e.Key)
	}
	return names
}

func TestDefaultRightsDropsTheHost(t *testing.T) {
	safe, dropped := parse(t, everything).DefaultRights()
	expected := want()
	expected.Root, expected.RootPriv, expected.RootMount, expected.RootUnmount = "", "", "", ""
	expected.Mounts, expected.Interfaces, expected.Networks, expected.Rlimits, expected.Sysctls = nil, nil, nil, nil, nil
	expected.NetworkAnnounce, expected.NetworkRevoke, expected.DevfsRuleset = "", "", ""
	expected.UserNS, expected.PrivAllow = UserNS{}, nil
	if d := diff(expected, safe); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, key := range []string{"FSROOT", "ROOT_MOUNT", "MOUNT_2", "NETIF_0_ADDRESS", "USERNS", "PRIV_ALLOW", "SYSCTL_kernel.sem"} {
		if !slices.Contains(dropped, key) {
			t.Errorf("%s is not named as dropped: %v", key, dropped)
		}
	}
	if _, dropped := Default("web").DefaultRights(); len(dropped) != 0 {
		t.Errorf("of the defaults, %v are dropped", dropped)
	}
}

func TestAllows(t *testing.T) {
	c := parse(t, everything)
	for address, expected := range map[string]bool{
		"10.0.0.2": true, "2001:db8::2": true, "10.0.0.4": false,
		"192.168.213.77": true, "192.168.214.1": false, "fc00::100:ffff": true, "fc00::200:21": false,
	} {
		if got := c.Allows(netip.MustParseAddr(address)); got != expected {
			t.Errorf("Allows(%s) = %v", address, got)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName("web"))
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("NAME=web\nFSROOT=srv\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if want := path + `:2: FSROOT: "srv" is no absolute path`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestValidName(t *testing.T) {
	for _, name := range []string{"a", "101", "web-1", "a_b", "web.build.x", strings.Repeat("a", 63), "vps01", "Web"} {
		if err := ValidName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{
		"", ".", "a.", ".a", "a..b", "-a", "a.-b", "_a", "a/b", "../x", "a b", "ä", "a\n", "vps0", "vps0.a", "a.vps0",
		strings.Repeat("a", 64), strings.TrimSuffix(strings.Repeat("abcdefghi.", 30), "."),
	} {
		if err := ValidName(name); !errors.Is(err, ErrName) {
			t.Errorf("ValidName(%q) = %v", name, err)
		}
	}
}

func TestKeysHaveDocumentation(t *testing.T) {
	for _, k := range Keys() {
		if k.Name == "" || k.Value == "" || k.Doc == "" {
			t.Errorf("%+v", k)
		}
	}
}

func TestWith(t *testing.T) {
	c, err := Parse("web.conf", strings.NewReader("NAME = web\nFSROOT = /srv\nENV = 'A=1 B=2'\nRESTART = always\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range [][2]string{{"NAME", "copy"}, {"hostname", "copy.example"}, {"RESTART", ""}, {"ENV_0", "A=3"}, {"NETIF_0_ADDRESS", "10.0.0.7"}} {
		if c, err = c.With(set[0], set[1]); err != nil {
			t.Fatal(set, err)
		}
	}
	again, err := Parse("again", strings.NewReader(c.Text()))
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "copy" || c.Hostname != "copy.example" || c.Restart.Policy != RestartNo || c.Root != "/srv" ||
		!slices.Contains(c.Env, "A=3") || !slices.Contains(c.Env, "B=2") || len(c.Env) != 2 || c.Text() != again.Text() {
		t.Error(c.Text())
	}
	for _, set := range [][2]string{{"NAME", "-"}, {"HOSTNAMES", "x"}, {"ENV", "B=3"}, {"HOSTNAME", "a\x1bb"}, {"NETIF_1_ADDRESS", "10.0.0.7"}} {
		if _, err := c.With(set[0], set[1]); err == nil {
			t.Errorf("%s was accepted", set)
		}
	}
}
