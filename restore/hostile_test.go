package restore_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/testimage"
	"vps/object"
	"vps/object/recordset"
	"vps/restore"
)

var (
	everyMutation = flag.Bool("mutations", false, "restore every changed snapshot, not only one for each field")
	update        = flag.Bool("update", false, "write testdata/hostile/records.vps anew")
)

// recordsFile has the records of a real snapshot, without its pages.
const recordsFile = "testdata/hostile/records.vps"

// names is what an error about a record begins with or contains.
var names = regexp.MustCompile(`(process|pid|thread|task|address space|descriptor table|signal actions|seccomp filter|file|pipe|socket|pty|memory|mount|inode|mapping) /?[0-9]|INSTANCE|PROCESS|general information|/[a-z]|files: / |file / |(host|domain) ?name|clock|boottime|monotonic|descriptors are needed|network [0-9a-z]|network: `)

// wellNamed tells whether an error says what it is about.
func wellNamed(err error) bool { return names.MatchString(err.Error()) }

// TestHostileRecords restores snapshots of which one field is wrong: each gives an error that names the object, or an
// instance that has no more than its rights.
func TestHostileRecords(t *testing.T) {
	s := hostileSite(t)
	s.begin(t, "everything", "")
	path := s.snapshot()
	s.end()
	file, err := dump.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := s.attempt(file.Snapshot); err != nil {
		t.Fatal(err)
	}
	s.end()

	recs := readRecords(t, file.Snapshot)
	if *update {
		if err := os.WriteFile(recordsFile, recs.bytes(t, nil, nil), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]int)
	refused, restored := 0, 0
	for n, m := range recs.all(2) {
		seen[m.class()]++
		if !*everyMutation && (seen[m.class()]+len(m.class()))%7 != 1 {
			continue
		}
		before := openFiles(t)
		begin := time.Now()
		err := s.attempt(recs.mutated(t, m, file.Snapshot))
		took := time.Since(begin)
		s.end()
		switch {
		case errors.Is(err, context.DeadlineExceeded), took > 8*time.Second:
			t.Errorf("%s: hangs: %v", m, err)
		case err == nil:
			restored++
		case !wellNamed(err):
			t.Errorf("%s: the error does not name it: %v", m, err)
		default:
			refused++
		}
		if after := openFiles(t); after > before {
			t.Errorf("%s: %d descriptors are left open", m, after-before)
		}
		if *everyMutation {
			t.Logf("%d %s: %v (%v)", n, m, err, took)
		}
	}
	t.Logf("%d refused, %d restored", refused, restored)
}

// hostileSite is a site whose image has a program that holds something of every kind.
func hostileSite(t testing.TB) *site {
	t.Helper()
	opts := []testimage.Option{testimage.Python()}
	for _, name := range []string{"kind.py", "hostile/everything.py"} {
		text, err := programs.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, testimage.File("/kind/"+filepath.Base(name), string(text), 0o644))
	}
	return newSite(t, opts...)
}

// attempt restores a snapshot in a new cell and looks at what the instance has got, without letting it run first.
func (s *site) attempt(snapshot *dump.Snapshot) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	set, err := recordset.Load(snapshot)
	if err != nil {
		return err
	}
	plan, err := restore.Prepare(snapshot, set)
	if err != nil {
		return err
	}
	if err := s.into(ctx, plan, set); err != nil {
		return err
	}
	s.checkRights()
	if err := s.group.Thaw(ctx); err != nil {
		return err
	}
	s.checkRights()
	return nil
}

// checkRights holds what every process of the instance has against what it may have.
func (s *site) checkRights() {
	s.t.Helper()
	pids, err := s.group.Procs()
	if err != nil {
		s.t.Fatal(err)
	}
	init := s.cell.Init.PID
	for _, pid := range pids {
		status, err := object.ReadStatus(pid)
		if object.Vanished(err) || err == nil && status.State == 'Z' {
			continue // it runs
		}
		if err != nil {
			s.t.Error(err)
			continue
		}
		for name, set := range map[string]uint64{
			"inheritable": status.CapInh, "permitted": status.CapPrm, "effective": status.CapEff, "bounding": status.CapBnd, "ambient": status.CapAmb,
		} {
			if more := set &^ s.rights.Capabilities; more != 0 {
				s.t.Errorf("process %d: %s capabilities %#x", pid, name, more)
			}
		}
		if status.Seccomp != unix.SECCOMP_MODE_FILTER {
			s.t.Errorf("process %d: seccomp mode %d", pid, status.Seccomp)
		}
		for _, ns := range []string{"user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"} {
			own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
			if err != nil {
				continue // it runs, and may be gone
			}
			if of, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", init, ns)); err == nil && own != of {
				s.t.Errorf("process %d is in %s, not %s", pid, own, of)
			}
			if ours, err := os.Readlink("/proc/self/ns/" + ns); err == nil && own == ours {
				s.t.Errorf("process %d is in our %s", pid, own)
			}
		}
		s.checkFiles(pid)
	}
}

// checkFiles looks for what is ours in a process: descriptors, memory.
func (s *site) checkFiles(pid int) {
	s.t.Helper()
	mounts := mountIDs(fmt.Sprintf("/proc/%d/mountinfo", pid))
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir) // it may be gone
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if strings.Contains(link, "vps-") {
			s.t.Errorf("process %d has descriptor %s on %s", pid, e.Name(), link)
		}
		if !strings.HasPrefix(link, "/") || strings.HasSuffix(link, "(deleted)") || strings.HasPrefix(link, "/memfd:") {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, e.Name()))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(info), "mnt_id:")
		id, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		if len(mounts) > 0 && !slices.Contains(mounts, id) {
			s.t.Errorf("process %d has descriptor %s on %s, which is on mount %s: not its own", pid, e.Name(), link, id)
		}
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err == nil && strings.Contains(string(maps), "vps-") {
		s.t.Errorf("process %d maps memory of ours:\n%s", pid, maps)
	}
}

func mountIDs(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var ids []string
	for line := range strings.Lines(string(text)) {
		id, _, _ := strings.Cut(line, " ")
		ids = append(ids, id)
	}
	return ids
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(os.Getpid()) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
