package memory

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// vma is a mapping as /proc/PID/smaps shows it (proc_pid_smaps(5)).
type vma struct {
	start, end uint64
	perms      string // rwxp
	offset     uint64
	inode      uint64
	device     string
	name       string // path, [heap], [anon:...] or nothing
	flags      []string
	resident   uint64 // bytes; by smaps only
}

func (v *vma) has(flag string) bool {
	for _, f := range v.flags {
		if f == flag {
			return true
		}
	}
	return false
}

func (v *vma) shared() bool { return v.perms[3] == 's' }

// prot returns PROT_READ, PROT_WRITE and PROT_EXEC.
func (v *vma) prot() uint32 {
	var p uint32
	for i, c := range "rwx" {
		if rune(v.perms[i]) == c {
			p |= 1 << i
		}
	}
	return p
}

// readSmaps returns the mappings of a process, by its pid here.
func readSmaps(pid int) ([]vma, error) { return readVMAs(pid, "smaps") }

// readMaps is readSmaps without the flags, for which the kernel need not look at every page.
func readMaps(pid int) ([]vma, error) { return readVMAs(pid, "maps") }

func readVMAs(pid int, file string) ([]vma, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return nil, err
	}
	list, err := parseSmaps(text)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return list, nil
}

func parseSmaps(text []byte) ([]vma, error) {
	var list []vma
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) == 0 || line[0] >= 'A' && line[0] <= 'Z' {
			if len(list) > 0 {
				if err := list[len(list)-1].property(line); err != nil {
					return nil, err
				}
			}
			continue
		}
		v, err := parseVMA(string(line))
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// keyed is a word of ours: a key protects the mapping (pkeys(7)).
const keyed = "pkey"

// property parses a line below that of a mapping. Those of interest: "Rss: n kB", "ProtectionKey: n", "VmFlags: rd wr ...".
func (v *vma) property(line []byte) error {
	var err error
	switch name, rest, _ := bytes.Cut(line, []byte(":")); string(name) {
	case "VmFlags":
		v.flags = append(v.flags, strings.Fields(string(rest))...)
	case "Rss":
		v.resident, err = strconv.ParseUint(string(bytes.TrimSpace(bytes.TrimSuffix(rest, []byte("kB")))), 10, 54)
		v.resident <<= 10
	case "ProtectionKey":
		if string(bytes.TrimSpace(rest)) != "0" {
			v.flags = append(v.flags, keyed)
		}
	}
	if err != nil {
		return fmt.Errorf("mapping %#x: %q: %w", v.start, line, err)
	}
	return nil
}

// parseVMA parses "start-end perms offset device inode   name", proc_pid_maps(5).
func parseVMA(line string) (vma, error) {
	fields := strings.SplitN(line, " ", 6)
	if len(fields) < 6 || len(fields[1]) != 4 {
		return vma{}, fmt.Errorf("mapping %q: not understood", line)
	}
	from, to, _ := strings.Cut(fields[0], "-")
	v := vma{perms: fields[1], device: fields[3], name: unescape(strings.TrimLeft(fields[5], " "))}
	var err error
	for _, n := range []struct {
		to   *uint64
		text string
		base int
	}{{&v.start, from, 16}, {&v.end, to, 16}, {&v.offset, fields[2], 16}, {&v.inode, fields[4], 10}} {
		if *n.to, err = strconv.ParseUint(n.text, n.base, 64); err != nil {
			return vma{}, fmt.Errorf("mapping %q: %w", line, err)
		}
	}
	return v, nil
}

// unescape undoes what the kernel does to a newline in a path.
func unescape(path string) string { return strings.ReplaceAll(path, `\012`, "\n") }
