package instance

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vps/internal/testimage"
)

// afresh takes an instance through a snapshot, its end, and a restore.
func (h *testHost) afresh(id string) {
	h.t.Helper()
	snapshot := h.snapshotted(id, SnapshotOptions{Stop: true})
	if err := h.Restore(h.t.Context(), id, bytes.NewReader(snapshot), RestoreOptions{Resume: true}, nil); err != nil {
		h.t.Fatal(err)
	}
}

// detach starts a program that nobody outside listens to.
func (h *testHost) detach(id string, uid string, args ...string) {
	h.t.Helper()
	s, err := h.Exec(h.t.Context(), id, ExecSpec{Args: args, User: uid, Detach: true})
	if err != nil {
		h.t.Fatal(err)
	}
	s.Close()
}

// number reads a file of one number inside; 0 if there is none.
func (h *testHost) number(path string) int {
	text, _ := os.ReadFile(filepath.Join(h.root, path)) // not there yet, or between two contents
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// until waits for a condition.
func (h *testHost) until(what string, holds func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// grows waits until a number has grown by some.
func (h *testHost) grows(path string, by int) {
	h.t.Helper()
	from := h.number(path)
	h.until(path+" to grow", func() bool { return h.number(path) >= from+by })
}

// fileInside returns the content of a file, "" if there is none.
func (h *testHost) fileInside(path string) string {
	text, _ := os.ReadFile(filepath.Join(h.root, path))
	return string(text)
}

// A pipeline of 200 processes passes every number on, through two snapshots.
func TestPipeline(t *testing.T) {
	h := newHost(t)
	h.start("web")
	const count = `i=0; while :; do i=$((i+1)); echo $i; done`
	const check = `w=1; while read n; do [ $n = $w ] || echo "$n, not $w" >>/tmp/wrong; w=$((n+1)); [ $((n % 50)) = 0 ] && echo $n >/tmp/new && mv /tmp/new /tmp/last; done`
	h.detach("web", "", "sh", "-c", "("+count+") "+strings.Repeat("| cat ", 198)+"| ("+check+")")
	h.grows("tmp/last", 1)
	for range 2 {
		h.afresh("web")
		h.grows("tmp/last", 1000)
	}
	if wrong := h.fileInside("tmp/wrong"); wrong != "" {
		t.Error(wrong)
	}
	if n := h.shell("web", "ps | grep -c '[c]at$'"); n != "198" {
		t.Errorf("%s stages are left", n)
	}
}

// Node.js with worker threads, a thread pool, timers and a child at a pipe.
func TestNode(t *testing.T) {
	script, err := os.ReadFile("testdata/busy.js")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, testimage.Node(), testimage.File("/busy.js", string(script), 0o644))
	h.start("web")
	h.detach("web", "", "node", "/busy.js")
	h.grows("tmp/rounds", 10)
	for range 3 {
		h.afresh("web")
		h.grows("tmp/rounds", 10)
	}
	if wrong := h.fileInside("tmp/wrong"); wrong != "" {
		t.Error(wrong)
	}
}

// PostgreSQL in the middle of a transaction, which commits after the restore.
func TestPostgres(t *testing.T) {
	h := newHost(t, testimage.Postgres())
	h.start("web")
	const bin = "/usr/lib/postgresql/15/bin/"
	h.shell("web", "mkdir -m 700 /data && chown user /data && mkfifo -m 666 /tmp/commands")
	if out, stderr, status := h.run("web", ExecSpec{Args: []string{bin + "initdb", "-D", "/data", "-A", "trust", "-N", "--no-locale"}, User: "user"}, ""); status != 0 {
		t.Fatalf("initdb: %s%s", out, stderr)
	}
	h.detach("web", "user", "sh", "-c", "exec "+bin+"postgres -D /data -k /tmp -c listen_addresses= -c max_wal_senders=0 >/tmp/postgres.log 2>&1")
	query := func(sql string) string {
		out, stderr, status := h.run("web", ExecSpec{Args: []string{bin + "psql", "-h", "/tmp", "-AtqX", "-c", sql, "postgres"}, User: "user"}, "")
		if status != 0 {
			return stderr
		}
		return strings.TrimSpace(out)
	}
	h.until("the server", func() bool { return query("select 1") == "1" })
	query("create table t (n int); create function fill() returns void language plpgsql as 'begin insert into t select generate_series(1, 100000); end'")

	h.detach("web", "user", "sh", "-c", "exec "+bin+"psql -h /tmp -AtX postgres <>/tmp/commands >/tmp/answers 2>&1")
	command := func(sql, answer string) {
		t.Helper()
		h.shell("web", "echo '"+sql+"' >/tmp/commands")
		h.until(answer, func() bool { return strings.HasSuffix(h.fileInside("tmp/answers"), answer+"\n") })
	}
	command("begin;", "BEGIN")
	command("select 42 from (select fill()) x;", "42")
	command("declare c cursor for select n from t order by n; fetch 3 from c;", "1\n2\n3")
	if n := query("select count(*) from t"); n != "0" {
		t.Fatalf("%s rows are there before the commit", n)
	}
	for n := range 2 {
		h.afresh("web")
		command("fetch 1 from c;", strconv.Itoa(4+n))
	}
	command("commit;", "COMMIT")
	if n := query("select count(*), sum(n) from t"); n != "100000|5000050000" {
		t.Errorf("after the commit: %s\n%s", n, h.fileInside("tmp/postgres.log"))
	}
	query("checkpoint")
	if log := h.fileInside("tmp/postgres.log"); strings.Contains(log, "PANIC") || strings.Contains(log, "FATAL:  could not") {
		t.Error(log)
	}
}
