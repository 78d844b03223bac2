// Package testimage builds small root file systems out of the host's own programs: busybox as init, shell and
// tools, and on request Redis and Python. Tests, the demo and the benchmarks run their instances on them.
package testimage

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Option adds something to an image.
type Option func(*image) error

// Build makes an image in a directory of the test's own, which vanishes with the test, and returns its path.
// The path is reachable by every user, as the root of an instance in its own user namespace must be.
// A program that the host lacks fails the test: scripts/setup installs them.
func Build(t testing.TB, opts ...Option) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vps-image-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove test image: %v", err)
		}
	})
	root := filepath.Join(dir, "root")
	for _, d := range []string{dir, root} {
		if err := mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Make(root, opts...); err != nil {
		t.Fatal(err)
	}
	return root
}

// Make fills the empty directory root, which it creates if need be, with an image. It needs root only in as
// far as the files' owner is whoever runs it.
func Make(root string, opts ...Option) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	m := &image{root: root, libraries: make(map[string]bool)}
	if err := m.base(); err != nil {
		return fmt.Errorf("test image %s: %w", root, err)
	}
	for _, opt := range opts {
		if err := opt(m); err != nil {
			return fmt.Errorf("test image %s: %w", root, err)
		}
	}
	return nil
}

// Program adds the host's program at path host, with the shared libraries it needs, as path guest.
func Program(host, guest string) Option {
	return func(m *image) error { return m.program(host, guest) }
}

// File adds a file; its directories are made as needed. It replaces one that is there.
func File(path, content string, mode fs.FileMode) Option {
	return func(m *image) error { return m.write(path, content, mode) }
}

// Inittab adds lines to /etc/inittab (busybox's format), for what init is to start and to keep running.
func Inittab(lines ...string) Option {
	return func(m *image) error {
		f, err := os.OpenFile(m.path("/etc/inittab"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for _, line := range lines {
			if _, err := fmt.Fprintln(f, line); err != nil {
				return err
			}
		}
		return f.Close()
	}
}

// Redis adds redis-server and redis-cli, and /etc/redis.conf, with which the server listens on RedisSocket
// only and never writes to disk. Nothing starts it: see [Inittab].
func Redis() Option {
	return func(m *image) error {
		// One binary is server and checker, by the name it is called: Debian's redis-tools has it
		// under the second name only.
		if err := m.program("/usr/bin/redis-check-rdb", "/usr/bin/redis-server"); err != nil {
			return err
		}
		if err := m.program("/usr/bin/redis-cli", "/usr/bin/redis-cli"); err != nil {
			return err
		}
		return m.write("/etc/redis.conf", RedisConfig, 0o644)
	}
}

// RedisSocket is where the Redis of an image listens.
const RedisSocket = "/tmp/redis.sock"

// RedisConfig is the /etc/redis.conf of an image.
const RedisConfig = `port 0
unixsocket ` + RedisSocket + `
unixsocketperm 777
save ""
appendonly no
daemonize no
dir /tmp
`

// Network adds what network administrators use, also in the place of what busybox has; its shell runs its own all the same.
func Network() Option {
	const legacy = "/usr/sbin/xtables-legacy-multi"
	return func(m *image) error {
		for name, host := range map[string]string{
			"sbin/ip": "/usr/sbin/ip", "sbin/tc": "/usr/sbin/tc", "sbin/nft": "/usr/sbin/nft",
			"sbin/iptables": legacy, "sbin/iptables-save": legacy, "sbin/iptables-restore": legacy,
			"sbin/ip6tables": legacy, "sbin/ip6tables-save": legacy, "sbin/ip6tables-restore": legacy,
		} {
			if err := m.program(host, "/usr/"+name); err != nil {
				return err
			}
		}
		for _, extension := range []string{"standard", "tcp", "udp", "mark", "owner"} {
			name := libraryDirs[1] + "/xtables/libxt_" + extension + ".so"
			if err := m.program(name, name); err != nil {
				return err
			}
		}
		return m.write("/etc/protocols", "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n", 0o644)
	}
}

// Python adds python3 with its standard library.
func Python() Option {
	return func(m *image) error { return m.python("/usr/bin/python3") }
}
