package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// verdict is what came of a program.
type verdict string

const (
	passed      verdict = "pass"
	failed      verdict = "FAIL"         // came back, and is not as it was
	notRestored verdict = "NOT RESTORED" // the snapshot was taken
	refused     verdict = "refused"      // by name, before anything was stopped
	cannotStart verdict = "cannot start" // in an instance, or on this machine
)

var verdicts = []verdict{passed, failed, notRestored, refused, cannotStart}

type result struct {
	name    string
	verdict verdict
	why     string
}

func compare(a, b string) int { return strings.Compare(a, b) }

type group struct {
	name  string
	match *regexp.Regexp
}

// groups are those of the report; a program is of the first one that its name matches.
var groups = []group{
	{"mounts", regexp.MustCompile(`^(mnt|mount|overmount|bind-mount|nested|shared_mount|shared_slave|rmdir_|autofs|binfmt|private_bind|non_uniform|unsupported_children|.*overlayfs)`)},
	{"network", regexp.MustCompile(`^(sock|sk|tcp|udp|net|mptcp|packet|tun|bridge|conntrack|sit|route|ipt|nft|vt_inet|inet|icmp|unconn|ipv6|.*macvlan|del_standalone|buffered_sock|.*netlink|.*_ip)`)},
	{"namespaces", regexp.MustCompile(`^(ns|.*ns$|.*ns0|userns|pidns|uts|utsname|timens|ipc_namespace|.*namespace)`)},
	{"control groups", regexp.MustCompile(`^(cgroup|cgp)`)},
	{"System V and POSIX IPC", regexp.MustCompile(`^(ipc|sysv|msg|sem|shm|mq|posix|mqueue|aio)`)},
	{"memory", regexp.MustCompile(`^(map|mem|maps|mlock|mprotect|mremap|hugetlb|huge|cow|dirty|thp|vdso|vsyscall|grow|stack|page|anon|memfd|shmem|uffd|madvise|mmap|brk|aio|membarrier|pthread_)`)},
	{"terminals", regexp.MustCompile(`^(tty|pty|console|vt|.*pty)`)},
	{"signals and timers", regexp.MustCompile(`^(sig|timer|itimer|posix_timer|sleep|alarm|timerfd|clock|.*signal|sched)`)},
	{"security", regexp.MustCompile(`^(cap|cred|seccomp|selinux|apparmor|lsm|groups|.*creds|no_new|loginuid|oom)`)},
	{"files", regexp.MustCompile(`^(file|fifo|pipe|eventfd|epoll|inotify|fanotify|dir|del|unlink|link|write|read|dev|fd|fpu|fs|ghost|chroot|cwd|dumpable|eventpoll|tempfs|tmpfs|proc|ofd|lock|lease|poll|splice|deleted|.*file.*|.*fd.*|.*fifo.*|.*pipe.*|.*dir.*)`)},
	{"processes", regexp.MustCompile(``)},
}

// report is a Markdown text: a table of the groups, and the reasons of what did not pass.
func report(results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %d programs.\n\n", time.Now().UTC().Format(time.DateOnly), release(), len(results))
	count := make(map[string]map[verdict]int)
	for _, r := range results {
		for _, group := range []string{r.group(), "all"} {
			if count[group] == nil {
				count[group] = make(map[verdict]int)
			}
			count[group][r.verdict]++
		}
	}
	b.WriteString("| group |")
	for _, v := range verdicts {
		fmt.Fprintf(&b, " %s |", v)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(verdicts)) + "\n")
	for _, g := range append(groups, group{name: "all"}) {
		row := count[g.name]
		if row == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s |", g.name)
		for _, v := range verdicts {
			fmt.Fprintf(&b, " %d |", row[v])
		}
		b.WriteString("\n")
	}
	for _, v := range verdicts[1:] {
		fmt.Fprintf(&b, "\n### %s\n\n", v)
		for _, r := range results {
			if r.verdict == v {
				fmt.Fprintf(&b, "- `%s`: %s\n", r.name, oneLine(r.why))
			}
		}
	}
	return b.String()
}

func (r result) group() string {
	for _, g := range groups {
		if g.match.MatchString(r.name) {
			return g.name
		}
	}
	return ""
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func release() string {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(uts.Release[:])
}

// Marks in the file between which the report lies.
const (
	beginMark = "<!-- make coverage: begin -->\n"
	endMark   = "<!-- make coverage: end -->\n"
)

// putReport puts the report into a file in place of the last one.
func putReport(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the report", path)
	}
	return os.WriteFile(path, []byte(before+beginMark+text+endMark+after), 0o644)
}

// readPasses reads the list of programs that have passed once.
func readPasses(path string) (map[string]bool, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	known := make(map[string]bool)
	for line := range bytes.Lines(data) {
		known[string(bytes.TrimSpace(line))] = true
	}
	return known, nil
}

func writePasses(path string, known map[string]bool) error {
	return os.WriteFile(path, []byte(strings.Join(slices.Sorted(maps.Keys(known)), "\n")+"\n"), 0o644)
}

// settle adds new passes to the list, and returns what is on it and does not pass any more.
func settle(known map[string]bool, results []result) (lost []string) {
	for _, r := range results {
		switch {
		case r.verdict == passed:
			known[r.name] = true
		case known[r.name]:
			lost = append(lost, r.name)
		}
	}
	return lost
}
