package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func usage(t *testing.T, g *Group, resource string) Usage {
	t.Helper()
	all, err := g.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		if u.Resource == resource {
			return u
		}
	}
	t.Fatalf("no usage of %s in %v", resource, all)
	return Usage{}
}

func TestForkBomb(t *testing.T) {
	g := newGroup(t, 0)
	if err := g.SetLimits([]Limit{{Procs, 10, 20}}); err != nil {
		t.Fatal(err)
	}
	// The subshell dies of the fork that is refused; the shell goes on.
	s := start(t, g, `(i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); echo $i; done) 2>&1; echo end; read stop`)
	var text []string
	for l := s.line(t); l != "end"; l = s.line(t) {
		text = append(text, l)
	}
	last := text[len(text)-1]
	if !strings.Contains(last, "fork") {
		t.Fatalf("200 processes within a limit of 20; the shell's last line: %q", last)
	}
	forked, err := strconv.Atoi(text[len(text)-2])
	if err != nil || forked < 15 || forked > 20 {
		t.Errorf("the shell forked %d times: %v", forked, err)
	}
	u := usage(t, g, Procs)
	if u.Soft != 10 || u.Hard != 20 || u.Peak != 20 || u.SoftHits == 0 || u.HardHits == 0 {
		t.Errorf("usage is %+v", u)
	}
	if u.Current <= 10 || u.Current > 20 || u.Flag() != 'C' {
		t.Errorf("usage is %+v, flag %c", u, u.Flag())
	}

	if err := g.SetLimits([]Limit{{Procs, 0, 0}}); err != nil {
		t.Fatal(err)
	}
	if u := usage(t, g, Procs); u.Soft != 0 || u.Hard != 0 {
		t.Errorf("after taking the limit away, usage is %+v", u)
	}
}

func TestMemoryHog(t *testing.T) {
	const limit = 32 << 20
	g := newGroup(t, 0)
	if err := g.SetLimits([]Limit{{Phys, limit / 2, limit}}); err != nil {
		t.Fatal(err)
	}
	// tail keeps a line without end in memory.
	s := start(t, g, `exec 2>/dev/null; head -c 256M /dev/zero | tail -n 1 | wc -c; echo survived; read stop`)
	if got := s.line(t); got == strconv.Itoa(256<<20) {
		t.Fatal("256 MiB of memory within a limit of 32 MiB")
	}
	if got := s.line(t); got != "survived" {
		t.Errorf("the shell's next line is %q", got)
	}
	u := usage(t, g, Phys)
	if u.Soft != limit/2 || u.Hard != limit || u.HardHits == 0 || u.SoftHits == 0 || u.Peak > limit || u.Peak < limit/2 {
		t.Errorf("usage is %+v", u)
	}
	if err := g.SetLimits([]Limit{{Resource: Phys}}); err != nil {
		t.Fatal(err)
	}
	if u := usage(t, g, Phys); u.Soft != 0 || u.Hard != 0 {
		t.Errorf("after taking the limit away, usage is %+v", u)
	}
}

func TestBadLimits(t *testing.T) {
	g := newGroup(t, 0)
	for _, test := range []struct {
		limit       Limit
		want        string
		unsupported bool
	}{
		{Limit{PctCPU, 100, 200}, "limit pctcpu: not supported yet", true},
		{Limit{Virt, 100, 200}, "limit virt: not supported yet", true},
		{Limit{"fish", 1, 2}, "limit fish: no such resource", false},
		{Limit{Procs, 30, 20}, "limit procs: soft limit 30 is above hard limit 20", false},
	} {
		err := g.SetLimits([]Limit{{Phys, 0, 1 << 30}, test.limit})
		if fmt.Sprint(err) != test.want || errors.Is(err, ErrUnsupported) != test.unsupported {
			t.Errorf("SetLimits(%v): %v, want %s", test.limit, err, test.want)
		}
		if u := usage(t, g, Phys); u.Hard != 0 {
			t.Errorf("a refused list set %+v", u)
		}
	}
}

func TestFlag(t *testing.T) {
	for _, test := range []struct {
		u    Usage
		want byte
	}{
		{Usage{Current: 5}, '_'},
		{Usage{Limit: Limit{Soft: 4}, Current: 5, HardHits: 1}, 'C'},
		{Usage{Limit: Limit{Soft: 4, Hard: 6}, Current: 3, SoftHits: 1, HardHits: 1}, 'X'},
		{Usage{Limit: Limit{Soft: 4}, Current: 3, SoftHits: 1}, 'x'},
	} {
		if got := test.u.Flag(); got != test.want {
			t.Errorf("%+v: flag %c, want %c", test.u, got, test.want)
		}
	}
}

func TestDevices(t *testing.T) {
	g := newGroup(t, 0)
	set := func(rules ...string) {
		t.Helper()
		err := g.SetDevices(rules)
		if errors.Is(err, unix.EPERM) {
			t.Skipf("needs CAP_BPF: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set("c 1:3 rwm", "c 1:5 r", "b 7:* r")
	s := start(t, g, `while read dev; do { sh -c ": $dev" && echo ok || echo no; } 2>&-; done`)
	ask := func(redirection, want string) {
		t.Helper()
		fmt.Fprintln(s.in, redirection)
		if got := s.line(t); got != want {
			t.Errorf("open %s: %s, want %s", redirection, got, want)
		}
	}
	ask("</dev/null", "ok")
	ask(">/dev/null", "ok")
	ask("</dev/zero", "ok")
	ask(">/dev/zero", "no")
	ask("</dev/full", "no")
	set("c 1:3 rwm", "c 1:7 rw")
	ask("</dev/zero", "no")
	ask("</dev/full", "ok")
	set("a *:* rwm")
	ask("</dev/zero", "ok")
	set()
	ask("</dev/null", "no")
}

func TestBadDeviceRules(t *testing.T) {
	for _, rule := range []string{"", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 rx", "c -1:3 r"} {
		if _, err := parseDeviceRule(rule); err == nil || !strings.Contains(err.Error(), strconv.Quote(rule)) {
			t.Errorf("%q: %v", rule, err)
		}
	}
}

// This host's memory controller may be in a v1 hierarchy: the files of v2 are
// simulated.
func TestMemoryV2(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"memory.current": "4096\n", "memory.peak": "8192\n", "memory.high": "max\n", "memory.max": "max\n",
		"memory.events": "low 0\nhigh 3\nmax 2\noom 1\noom_kill 1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := memoryV2{dir}
	want := Usage{Current: 4096, Peak: 8192, SoftHits: 3, HardHits: 2}
	if u, err := m.usage(); err != nil || u != want {
		t.Errorf("usage() = %+v, %v, want %+v", u, err, want)
	}
	if err := m.set(Limit{Phys, 10000, 20000}); err != nil {
		t.Fatal(err)
	}
	want.Soft, want.Hard = 10000, 20000
	if u, err := m.usage(); err != nil || u != want {
		t.Errorf("after set, usage() = %+v, %v, want %+v", u, err, want)
	}
}
