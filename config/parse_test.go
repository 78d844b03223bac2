package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestErrors reads one bad line after two good ones.
func TestErrors(t *testing.T) {
	const before = "NAME = web\nFSROOT = /srv/web\n"
	for line, expected := range map[string]string{
		"FSROT = /srv":                       "FSROT: unknown key; did you mean FSROOT?",
		"IMIT = /sbin/init":                  "IMIT: unknown key; did you mean INIT?",
		"netif_3_adress = ::1":               "netif_3_adress: unknown key; did you mean NETIF_3_ADDRESS?",
		"NETIF_ADDRESS = ::1":                "NETIF_ADDRESS: unknown key; did you mean NETIF_<n>_ADDRESS?",
		"MONUT_1 = 'a b'":                    "MONUT_1: unknown key; did you mean MOUNT_1?",
		"RLIMT_NOFILE = 1":                   "RLIMT_NOFILE: unknown key; did you mean RLIMIT_NOFILE?",
		"SYSCLT_net.x.y = 1":                 "SYSCLT_net.x.y: unknown key; did you mean SYSCTL_net.x.y?",
		"zz = 1":                             "zz: unknown key; vps.conf(5) lists the keys",
		"EPAIR_0_IFIDX = 1":                  "EPAIR_0_IFIDX: there are no epair interfaces on Linux; NETIF_<n>_ADDRESS gives the instance an interface at the switch; for a link of your own make a veth pair, and ip link set IF netns PID moves one end in",
		"hello":                              `"hello" has no =; a line is NAME = value`,
		"= x":                                `"" is no key; a line is NAME = value`,
		"A B = x":                            `"A B" is no key; a line is NAME = value`,
		"INIT =":                             "INIT: no value; leave the line out to have the default",
		"INIT = ''":                          "INIT: no value; leave the line out to have the default",
		"INIT = # none":                      "INIT: no value; leave the line out to have the default",
		"INIT = /bin/sh -c":                  `INIT: "-c" after the value; a value with white space has to be quoted`,
		"INIT = '/bin/sh":                    "INIT: no closing '",
		`INIT = '/bin/sh "a'`:                `INIT: no closing " in "/bin/sh \"a"`,
		"INIT = '/bin/sh'x":                  `INIT: "x" right after the closing '; quote the whole value`,
		"ENV_0 = A='b'":                      `ENV_0: a quote inside "A='b'"; quote the whole value`,
		"INIT = init":                        `INIT: "init" is no absolute path`,
		"NAME = web2":                        "NAME: set twice, in line 1 and line 3",
		"name = web":                         "NAME: set twice, in line 1 and line 3",
		"INIT = '/a\x01'":                    "control character U+0001",
		"INIT = /\xff":                       "not UTF-8",
		"ROOT_PRIV = /x/../y":                "ROOT_PRIV: unknown key; did you mean FSROOT_PRIV?",
		"FSROOT_PRIV = /x/../y":              `FSROOT_PRIV: "/x/../y" has a .. in it; write the path without it`,
		"FSROOT_PRIV = ///":                  "FSROOT_PRIV: the root directory itself cannot be used",
		"MOUNT_1 = /a":                       `MOUNT_1: "/a" has no target; SOURCE TARGET [ro], or tmpfs TARGET [ro] [size=N]`,
		"MOUNT_1 = 'a /b'":                   `MOUNT_1: "a" is no absolute path`,
		"MOUNT_1 = '/a /b rw'":               `MOUNT_1: unknown option "rw"; ro, and size=N of a tmpfs`,
		"MOUNT_1 = '/a /b size=1'":           "MOUNT_1: only a tmpfs has a size; tmpfs /b size=1",
		"MOUNT_256 = '/a /b'":                `MOUNT_256: "256" is no number from 0 to 255`,
		"MOUNT_x = '/a /b'":                  `MOUNT_x: "x" is no number from 0 to 255`,
		"ENV = 'A=1 A=2'":                    "ENV: variable A is set twice",
		"ENV_1 = 1A=2":                       `ENV_1: "1A=2" is no NAME=value`,
		"HOSTNAME = -x":                      `HOSTNAME: "-x" is no host name; at most 64 letters, digits, -, _ and dots`,
		"MACHINE_ID = 12":                    `MACHINE_ID: "12" is no machine id; 32 hexadecimal digits, not all of them 0; dbus-uuidgen makes one`,
		"CONSOLE = true":                     `CONSOLE: "true" is not yes or no`,
		"NETIF_0_ADDRESS = 10.0.0.1/24":      `NETIF_0_ADDRESS: "10.0.0.1/24" is a network; the address alone, 10.0.0.1`,
		"NETIF_0_ADDRESS = 10.0.0.300":       `NETIF_0_ADDRESS: "10.0.0.300" is no IPv4 or IPv6 address`,
		"NETIF_0_ADDRESS = 127.0.0.1":        `NETIF_0_ADDRESS: "127.0.0.1" cannot be the address of an interface`,
		"NETIF_0_FORWARD = 80":               `NETIF_0_FORWARD: "80" forwards no port; as in 8080:80, udp:53:53, 192.0.2.1:443:443, [2001:db8::1]:443:443`,
		"NETIF_0_FORWARD = 80:0":             `NETIF_0_FORWARD: "80:0" forwards no port; as in 8080:80, udp:53:53, 192.0.2.1:443:443, [2001:db8::1]:443:443`,
		"NETIF_0_FORWARD = 80:80":            `NETIF_0_FORWARD: the interface has no address that tcp:80:80 could lead to`,
		"NETIF_0_BANDWIDTH = 10":             `NETIF_0_BANDWIDTH: "10" is no rate; bits per second from 8K to 1T, as in 500M or 1G; 0 for no limit`,
		"NETIF_0_ADDRESS = fc00::1,FC00::1":  `NETIF_0_ADDRESS: "FC00::1" is there twice`,
		"IP_NETWORKS = 10.0.0.5/24":          `IP_NETWORKS: "10.0.0.5/24" has bits set after its prefix; the network is 10.0.0.0/24`,
		"IP_NETWORKS = 10.0.0.0/255.0.255.0": `IP_NETWORKS: "255.0.255.0" is no network mask`,
		"IP_NETWORKS = 10.0.0.0/33":          `IP_NETWORKS: "/33" is no prefix length of 10.0.0.0; a number from 0 to 32`,
		"IP_NETWORKS = ','":                  "IP_NETWORKS: an empty list; leave the line out to have the default",
		"DNS = fe80::1%eth0":                 `DNS: "fe80::1%eth0" is no IPv4 or IPv6 address`,
		"USERNS = hots":                      `USERNS: "hots" is not auto, host or a number; did you mean host?`,
		"USERNS = 1000":                      "USERNS: the first id 1000 is out of range; 65536 to 4294901759; ids below are the host's own users",
		"PRIV_ALLOW = a/b":                   `PRIV_ALLOW: "a/b" is no name; at most 63 letters, digits, - and _`,
		"LIMITS = phys:1":                    `LIMITS: "phys:1" is not resource:soft:hard; 0 is no limit, as in phys:0:1G`,
		"LIMITS = phis:1:2":                  `LIMITS: unknown resource "phis"; did you mean phys?`,
		"LIMITS = phys:2G:1G":                `LIMITS: "phys:2G:1G": the soft limit is above the hard limit`,
		"LIMITS = phys:1:2,PHYS:1:2":         `LIMITS: "PHYS:1:2" is there twice`,
		"LIMITS = phys:1:2X":                 `LIMITS: "2X" is no size; bytes, or a number with K, M, G or T`,
		"LIMITS = phys:0:9999999999T":        `LIMITS: "9999999999T" is too large`,
		"LIMITS = procs:0:1K":                `LIMITS: "1K" is no number`,
		"LIMITS = procs:-1:1":                `LIMITS: "-1" is no number`,
		"RLIMIT_NOFILES = 1":                 `RLIMIT_NOFILES: unknown resource "NOFILES"; did you mean NOFILE?`,
		"RLIMIT_NOFILE = 2:1":                `RLIMIT_NOFILE: "2:1": the soft limit is above the hard limit`,
		"RLIMIT_NICE = 41":                   `RLIMIT_NICE: "41" is more than 40`,
		"SYSCTL_kernel.panic = 1":            `SYSCTL_kernel.panic: "kernel.panic" is not the instance's own, so it cannot be set for one; net.*, fs.mqueue.*, user.* and some of kernel.* can: see vps.conf(5)`,
		"SYSCTL_net.//.//.x = 1":             `SYSCTL_net.//.//.x: "net.//.//.x" is no kernel parameter; a name such as net.ipv4.ip_forward`,
		"SYSCTL_net..x = 1":                  `SYSCTL_net..x: "net..x" is no kernel parameter; a name such as net.ipv4.ip_forward`,
		"RESTART = allways":                  `RESTART: "allways" is not one of no on-failure always; did you mean always?`,
		"RESTART = no:3":                     `RESTART: "no:3": there is no number of times for no`,
		"RESTART = always:0":                 `RESTART: "0" is no number from 1 to 1000000`,
		"HOST_SHUTDOWN = kill":               `HOST_SHUTDOWN: "kill" is not one of stop suspend snapshot`,
		"START_ORDER = 1.5":                  `START_ORDER: "1.5" is no number from -1000000 to 1000000`,
		"STOP_SIGNAL = TREM":                 `STOP_SIGNAL: "TREM" is no signal; a name such as TERM or RTMIN+3, or a number from 1 to 64`,
		"STOP_TIMEOUT = soon":                `STOP_TIMEOUT: "soon" is no time from 0 to 24h0m0s; seconds, or with units as in 1m30s`,
	} {
		_, err := Parse("vps_web.conf", strings.NewReader(before+line+"\n"))
		errs := Errors(err)
		if len(errs) != 1 || errs[0].Error() != "vps_web.conf:3: "+expected {
			t.Errorf("%s\n got %v\nwant vps_web.conf:3: %s", line, err, expected)
		}
	}
}

func TestAllErrorsAreReported(t *testing.T) {
	_, err := Parse("x", strings.NewReader("FSROT=/a\nCONSOLE=maybe\nMOUNT_0='/a /t'\n\nINIT\nMOUNT_1='/b /t'\n"))
	var lines []int
	for _, e := range Errors(err) {
		lines = append(lines, e.Line)
	}
	if fmt.Sprint(lines) != "[1 2 5 6]" {
		t.Errorf("errors in lines %v:\n%v", lines, err)
	}
}

func TestClashNamesBothKeys(t *testing.T) {
	for text, expected := range map[string]string{
		"MOUNT_0='/a /t'\nMOUNT_1='tmpfs //t/'":              "x:2: MOUNT_1: target /t is in MOUNT_0 too",
		"PRIV_DENY=mknod\nPRIV_NOSYS=MKNOD":                  "x:2: PRIV_NOSYS: privilege MKNOD is in PRIV_DENY too",
		"NETIF_0_IFIDX=1\nNETIF_1_IFIDX=1":                   "x:2: NETIF_1_IFIDX: interface vps1 is in NETIF_0_IFIDX too",
		"NETIF_0_ADDRESS=10.0.0.1\nNETIF_2_ADDRESS=10.0.0.1": "x:2: NETIF_2_ADDRESS: address 10.0.0.1 is in NETIF_0_ADDRESS too",
		"USERNS=host\nSYSCTL_user.max_net_namespaces=1":      "x:2: SYSCTL_user.max_net_namespaces: with USERNS = host this is the host's own parameter",
		"MOUNT_01='/a /b'\nMOUNT_1='/a /c'":                  "x:2: MOUNT_1: set twice, in line 1 and line 2",
		"SYSCTL_net.a.b=1\nSYSCTL_net/a/b=1":                 "x:2: SYSCTL_net.a.b: set twice, in line 1 and line 2",
	} {
		if _, err := Parse("x", strings.NewReader(text)); err == nil || err.Error() != expected {
			t.Errorf("%s\n got %v\nwant %s", text, err, expected)
		}
	}
	parse(t, "NETIF_0_IFIDX=1\nNETIF_1_IFIDX=0") // each other's
}

func TestSizeIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"file":        strings.Repeat("# comment\n", maxSize/10+1),
		"value":       "ROOT_MOUNT=" + strings.Repeat("x", maxValue+1),
		"command":     "ROOT_MOUNT=" + strings.Repeat("x", maxPath+1),
		"path":        "FSROOT=/" + strings.Repeat("x", maxPath),
		"arguments":   "INIT='/x" + strings.Repeat(" y", maxArgs) + "'",
		"variables":   "ENV='" + manyVariables() + "'",
		"list":        "DNS=" + strings.Repeat("1.1.1.1,", maxList+1),
		"key":         strings.Repeat("x", maxSize/2) + "=1",
		"sysctls":     manySysctls(),
		"sysctl name": "SYSCTL_net." + strings.Repeat("x", 300) + "=1",
	} {
		if _, err := Parse("x", strings.NewReader(text)); err == nil || len(err.Error()) > 1000 {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Parse("x", strings.NewReader(strings.Repeat("bad\n", 10_000)))
	if n := len(Errors(err)); n != maxErrors+1 {
		t.Errorf("%d errors of 10000", n)
	}
}

func manyVariables() string {
	var b strings.Builder
	for i := range maxArgs + 1 {
		fmt.Fprintf(&b, "V%d=x ", i)
	}
	return b.String()
}

func manySysctls() string {
	var b strings.Builder
	for i := range maxList + 1 {
		fmt.Fprintf(&b, "SYSCTL_net.x%d=1\n", i)
	}
	return b.String()
}

func TestParseSignal(t *testing.T) {
	for text, expected := range map[string]string{
		"TERM": "SIGTERM", "sigusr1": "SIGUSR1", "9": "SIGKILL", "RTMIN": "SIGRTMIN", "34": "SIGRTMIN",
		"SIGRTMIN+3": "SIGRTMIN+3", "rtmax": "SIGRTMIN+30", "RTMAX-1": "SIGRTMIN+29", "33": "33",
	} {
		sig, err := ParseSignal(text)
		if err != nil || SignalName(sig) != expected {
			t.Errorf("ParseSignal(%s) = %s, %v; want %s", text, SignalName(sig), err, expected)
		}
	}
	for _, text := range []string{"", "0", "65", "+9", "-9", "RTMIN-1", "RTMAX+1", "RTMIN3", "RTMIN+31", "SIG", "TERM+1"} {
		if sig, err := ParseSignal(text); err == nil {
			t.Errorf("ParseSignal(%q) = %d", text, sig)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for name, path := range map[string]string{
		"net.ipv4.ip_forward":             "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/5.forwarding": "net/ipv4/conf/eth0.5/forwarding",
	} {
		if got := (Sysctl{Name: name}).Path(); got != path {
			t.Errorf("Path of %s = %s", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(everything)
	f.Add(Default("web").Text())
	for line := range strings.Lines(everything) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("fuzz", strings.NewReader(text))
		if err != nil {
			if len(Errors(err)) == 0 {
				t.Fatalf("an error without a place: %v", err)
			}
			for _, e := range Errors(err) {
				if len(e.Error()) > 1000 {
					t.Fatalf("an error of %d bytes", len(e.Error()))
				}
			}
			return
		}
		written := c.Text()
		again, err := Parse("written", strings.NewReader(written))
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, written)
		}
		if d := diff(c, again); d != "" {
			t.Fatalf("what was written means something else (-before +after)\n%s", d)
		}
		if c.Name != "" && c.Root != "" {
			if err := c.Validate(); err != nil {
				t.Fatalf("parsed, but not valid: %v", err)
			}
		}
		safe, _ := c.DefaultRights()
		if _, more := safe.DefaultRights(); len(more) != 0 {
			t.Fatalf("rights left after they were taken: %v", more)
		}
	})
}
