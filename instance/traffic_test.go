package instance

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vps/internal/nettest"
	"vps/internal/testimage"
)

// address is that of an instance whose clients are outside, and address6.
const (
	address  = "192.0.2.10"
	address6 = "2001:db8::10"
	netif    = "NETIF_0_ADDRESS=" + address + "," + address6
)

// client is a program that runs outside.
type client struct {
	t    testing.TB
	name string
	in   io.Writer
	log  string // the file with what it says
	done chan error
}

// outside starts a program in the network of somebody outside.
func outside(t testing.TB, p *nettest.Place, argv ...string) *client {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{"-t", p.Process(), "-n"}, argv...)...)
	c := &client{t: t, name: argv[0], log: filepath.Join(t.TempDir(), "log"), done: make(chan error, 1)}
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if c.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.done <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	return c
}

// said returns what the client has said so far.
func (c *client) said() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// runs fails the test if the client has ended.
func (c *client) runs() {
	c.t.Helper()
	select {
	case err := <-c.done:
		c.t.Fatalf("%s has ended: %v: %s", c.name, err, c.said())
	default:
	}
}

// ends waits for the end of the client, which must be a good one, and returns what it has said.
func (c *client) ends() string {
	c.t.Helper()
	select {
	case err := <-c.done:
		if err != nil {
			c.t.Fatalf("%s: %v: %s", c.name, err, c.said())
		}
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("%s does not end", c.name)
	}
	return c.said()
}

// fiveTimes takes an instance through five snapshots, ends and restores while clients are busy with it.
func (h *testHost) fiveTimes(id string, busy func()) {
	h.t.Helper()
	for range 5 {
		time.Sleep(100 * time.Millisecond) // of work: there is nothing to wait for
		busy()
		h.afresh(id)
	}
}

// served returns how many requests the nginx of an instance has served.
func (h *testHost) served(id string) int {
	out, _, status := h.run(id, ExecSpec{Args: []string{"wget", "-qO-", "http://127.0.0.1/status"}}, "")
	if status != 0 {
		return 0 // not yet
	}
	var accepted, handled, requests int
	if _, numbers, ok := strings.Cut(out, "requests"); !ok {
		h.t.Fatalf("nginx: %s", out)
	} else if _, err := fmt.Sscan(numbers, &accepted, &handled, &requests); err != nil {
		h.t.Fatalf("nginx: %s: %v", out, err)
	}
	return requests
}

// noErrors fails the test if a report of wrk tells of any.
func noErrors(t testing.TB, report string) {
	t.Helper()
	if strings.Contains(report, "Socket errors") || strings.Contains(report, "Non-2xx") || !strings.Contains(report, "requests in") {
		t.Error(report)
	}
}

// nginx and 200 connections that wrk keeps busy, both in the instance, see nothing of five restores.
func TestNginxInside(t *testing.T) {
	h := newHost(t, testimage.Nginx(), testimage.Program("/usr/bin/wrk", "/usr/bin/wrk"), testimage.File("/srv/index.html", "hello\n", 0o644))
	h.start("web")
	h.detach("web", "", "nginx")
	h.until("nginx", func() bool { return h.served("web") > 0 })
	h.detach("web", "", "sh", "-c", "wrk -t 2 -c 200 -d 10s --timeout 30s http://127.0.0.1:80/index.html >/tmp/wrk 2>&1; echo done >>/tmp/wrk")
	for range 5 {
		before := h.served("web")
		h.until("requests", func() bool { return h.served("web") > before+500 })
		if report := h.fileInside("tmp/wrk"); strings.Contains(report, "done") {
			t.Fatalf("wrk ended too early: %s", report)
		}
		h.afresh("web")
	}
	h.until("wrk", func() bool { return strings.HasSuffix(h.fileInside("tmp/wrk"), "done\n") })
	noErrors(t, h.fileInside("tmp/wrk"))
}

// nginx is asked from outside by 200 connections of IPv6, while it sends a file of 1 GiB and takes another one.
func TestNginx(t *testing.T) {
	lan := nettest.Network(t)
	h := newHost(t, testimage.Nginx(), testimage.File("/srv/index.html", "hello\n", 0o644))
	h.start("web", netif)
	h.detach("web", "", "nginx")
	h.until("nginx", func() bool { return h.served("web") > 0 })
	sum := random(t, filepath.Join(h.root, "srv/large"), 1<<30)
	dir := t.TempDir()
	upload := filepath.Join(dir, "upload")
	sent := random(t, upload, 256<<20)

	clients := []*client{
		outside(t, lan, "curl", "-sS", "--limit-rate", "90M", "-o", filepath.Join(dir, "large"), "http://"+address+"/large"),
		outside(t, lan, "curl", "-sS", "--limit-rate", "22M", "-T", upload, "http://"+address+"/up/file"),
		outside(t, lan, "wrk", "-t", "2", "-c", "200", "-d", "12s", "--timeout", "30s", "http://["+address6+"]:80/index.html"),
	}
	h.fiveTimes("web", func() {
		for _, c := range clients {
			c.runs()
		}
	})
	noErrors(t, clients[2].ends())
	for _, c := range clients[:2] {
		c.ends()
	}
	if sumOf(t, filepath.Join(dir, "large")) != sum {
		t.Error("other bytes were downloaded")
	}
	if sumOf(t, filepath.Join(h.root, "srv/up/file")) != sent {
		t.Error("other bytes were uploaded")
	}
}

// random makes a file of pseudorandom bytes, and returns their checksum.
func random(t testing.TB, path string, size int64) [sha256.Size]byte {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{}), size); err != nil {
		t.Fatal(err)
	}
	return sumOf(t, path)
}

func sumOf(t testing.TB, path string) (sum [sha256.Size]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// Ten connections of redis-benchmark: every command is done once.
func TestRedisFromOutside(t *testing.T) {
	lan := nettest.Network(t)
	h := newHost(t, testimage.Redis())
	h.start("db", netif)
	h.detach("db", "", "redis-server", "--port", "6379", "--protected-mode", "no", "--save", "", "--dir", "/tmp")
	cli := func(command ...string) string {
		return strings.TrimSpace(outside(t, lan, append([]string{"redis-cli", "-h", address}, command...)...).ends())
	}
	h.until("Redis", func() bool { return h.shell("db", "redis-cli ping || true") == "PONG" })
	const commands = "250000"
	load := outside(t, lan, "redis-benchmark", "-h", address, "-c", "10", "-n", commands, "-t", "incr", "-q")
	h.fiveTimes("db", load.runs)
	if report := load.ends(); strings.Contains(report, "rror") {
		t.Error(report)
	}
	if n := cli("get", "counter:__rand_int__"); n != commands {
		t.Errorf("%s commands of %s were done", n, commands)
	}
}

// pgbench sees no error, and the sums of what it did agree.
func TestPgbench(t *testing.T) {
	lan := nettest.Network(t)
	h := newHost(t, testimage.Postgres())
	h.start("db", netif)
	const bin = "/usr/lib/postgresql/15/bin/"
	h.shell("db", "mkdir -m 700 /data && chown user /data")
	if out, stderr, status := h.run("db", ExecSpec{Args: []string{bin + "initdb", "-D", "/data", "-A", "trust", "-N", "--no-locale"}, User: "user"}, ""); status != 0 {
		t.Fatalf("initdb: %s%s", out, stderr)
	}
	h.shell("db", "echo 'host all all all trust' >>/data/pg_hba.conf")
	h.detach("db", "user", "sh", "-c", "exec "+bin+"postgres -D /data -k /tmp -c listen_addresses='*' -c fsync=off >/tmp/postgres.log 2>&1")
	h.until("the server", func() bool {
		_, _, status := h.run("db", ExecSpec{Args: []string{bin + "psql", "-h", "/tmp", "-c", "select 1", "postgres"}, User: "user"}, "")
		return status == 0
	})
	pgbench := func(args ...string) *client {
		return outside(t, lan, append([]string{bin + "pgbench", "-h", address6, "-U", "user"}, args...)...)
	}
	pgbench("-i", "-q", "-s", "2", "postgres").ends()
	load := pgbench("-c", "8", "-j", "2", "-T", "12", "postgres")
	h.fiveTimes("db", load.runs)
	if report := load.ends(); strings.Contains(report, "aborted") || !strings.Contains(report, "number of failed transactions: 0 ") {
		t.Error(report)
	}
	sums := "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)"
	out, stderr, _ := h.run("db", ExecSpec{Args: []string{bin + "psql", "-h", "/tmp", "-Atc", sums, "postgres"}, User: "user"}, "")
	if strings.TrimSpace(out) != "t" {
		t.Errorf("%s%s\n%s", out, stderr, h.fileInside("tmp/postgres.log"))
	}
}

// Somebody edits a file over ssh.
func TestSSH(t *testing.T) {
	lan := nettest.Network(t)
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, testimage.SSH(string(public)))
	h.start("web", netif)
	h.detach("web", "", "sh", "-c", "exec dropbear -R -F -E 2>/tmp/log")
	h.until("the server", func() bool { return strings.Contains(h.fileInside("tmp/log"), "Not backgrounding") })
	session := outside(t, lan, "ssh", "-tt", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=20", "root@"+address, "vi /tmp/text")
	// The last line says in what mode the editor is.
	write := func(text, mode string) {
		t.Helper()
		if _, err := io.WriteString(session.in, text); err != nil {
			t.Fatal(err)
		}
		h.until("mode "+mode, func() bool {
			said := strings.Split(session.said(), "\x1b[K")
			return strings.HasPrefix(said[len(said)-1], mode)
		})
	}
	write("", "- /tmp/text")
	write("i", "I /tmp/text")
	var want strings.Builder
	h.fiveTimes("web", func() {
		session.runs()
		line := fmt.Sprintf("line %d", want.Len())
		fmt.Fprintln(&want, line)
		write(line+"\r", "I /tmp/text")
	})
	write("\x1b", "- /tmp/text")
	write(":wq\r", "")
	session.ends()
	if text := strings.TrimRight(h.fileInside("tmp/text"), "\n"); text != strings.TrimRight(want.String(), "\n") {
		t.Errorf("edited: %q, want %q", text, want.String())
	}
}

// caller exchanges numbers with an echo server over one connection, and notes how many.
const caller = `
import os, socket, sys
s = socket.create_connection((sys.argv[1], 7))
n = 0
while True:
    n += 1
    message = b"%d\n" % n
    s.sendall(message)
    got = b""
    while len(got) < len(message):
        more = s.recv(len(message) - len(got))
        if not more:
            sys.exit("the connection has ended")
        got += more
    if got != message:
        sys.exit("%r is not %r" % (got, message))
    with open("/tmp/new", "w") as f:
        f.write(str(n))
    os.rename("/tmp/new", "/tmp/rounds")
`

// A connection between two instances outlives that both are snapshotted, ended and restored, one after the other.
func TestTwoInstances(t *testing.T) {
	h, _ := lanHost(t)
	h.start("db", "NETIF_0_ADDRESS=192.0.2.11,2001:db8::11", echoInit)
	h.start("web", "NETIF_0_ADDRESS=192.0.2.10,2001:db8::10")
	h.until("the server", func() bool { return nettest.Self(t).Reach("192.0.2.11", time.Second) == nil })
	h.shell("web", "cat >/tmp/caller.py <<'END'"+caller+"END")
	for _, to := range []string{"192.0.2.11", "2001:db8::11"} {
		t.Run(to, func(t *testing.T) {
			h.detach("web", "", "sh", "-c", "python3 /tmp/caller.py "+to+" >/tmp/ended 2>&1; echo over >>/tmp/ended")
			h.grows("tmp/rounds", 10)
			for range 5 {
				web, db := h.snapshotted("web", SnapshotOptions{Stop: true}), h.snapshotted("db", SnapshotOptions{Stop: true})
				for _, one := range []struct {
					id       string
					snapshot []byte
				}{{"web", web}, {"db", db}} {
					if err := h.Restore(t.Context(), one.id, bytes.NewReader(one.snapshot), RestoreOptions{Resume: true}, nil); err != nil {
						t.Fatal(err)
					}
				}
				h.grows("tmp/rounds", 10)
			}
			if said := h.fileInside("tmp/ended"); said != "" {
				t.Error(said)
			}
			h.shell("web", "killall python3; until grep over /tmp/ended; do sleep 0.05; done; rm /tmp/ended")
		})
	}
}
