package account

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

const (
	hybridMounts = `31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`
	unifiedMounts = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestBases(t *testing.T) {
	for _, test := range []struct {
		name, mounts, own string
		delegated         string
		want              []string
	}{
		{
			name:   "hybrid, started by a command with a memory group of its own",
			mounts: hybridMounts,
			own:    "9:name=systemd:/\n8:pids:/\n4:memory:/api/1172\n1:cpu,cpuacct:/\n0::/\n",
			want:   []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"},
		},
		{
			name:      "hybrid, a delegated service",
			mounts:    hybridMounts,
			own:       "8:pids:/system.slice/vps.service\n4:memory:/system.slice/vps.service\n0::/system.slice/vps.service\n",
			delegated: "/sys/fs/cgroup/unified/system.slice/vps.service",
			want: []string{"/sys/fs/cgroup/unified/system.slice/vps.service",
				"/sys/fs/cgroup/memory/system.slice/vps.service", "/sys/fs/cgroup/pids/system.slice/vps.service"},
		},
		{
			name:      "hybrid, a delegated service without the memory controller",
			mounts:    hybridMounts,
			own:       "8:pids:/system.slice/vps.service\n4:memory:/system.slice\n0::/system.slice/vps.service\n",
			delegated: "/sys/fs/cgroup/unified/system.slice/vps.service",
			want: []string{"/sys/fs/cgroup/unified/system.slice/vps.service",
				"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids/system.slice/vps.service"},
		},
		{
			name:   "v2, a login session",
			mounts: unifiedMounts,
			own:    "0::/user.slice/user-0.slice/session-1.scope\n",
			want:   []string{"/sys/fs/cgroup"},
		},
		{
			name:      "v2, a subgroup of a delegated service",
			mounts:    unifiedMounts,
			own:       "0::/system.slice/vps.service/daemon\n",
			delegated: "/sys/fs/cgroup/system.slice/vps.service",
			want:      []string{"/sys/fs/cgroup/system.slice/vps.service"},
		},
		{
			name:      "v2, a mount of a part of the hierarchy",
			mounts:    "31 23 0:28 /machine /mnt/cg\\040roup rw - cgroup2 cgroup2 rw\n",
			own:       "0::/machine/one\n",
			delegated: "/mnt/cg roup/one",
			want:      []string{"/mnt/cg roup/one"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, err := find(parseMounts(t, test.mounts), test.own, func(dir string) bool { return dir == test.delegated })
			if err != nil {
				t.Fatal(err)
			}
			if got := h.bases(); !slices.Equal(got, test.want) {
				t.Errorf("bases are %q, want %q", got, test.want)
			}
			if h.delegated != (test.delegated != "") {
				t.Errorf("delegated = %v", h.delegated)
			}
		})
	}
}

func TestNoUnified(t *testing.T) {
	mounts := parseMounts(t, strings.ReplaceAll(hybridMounts, "cgroup2", "cgroup"))
	if _, err := find(mounts, "0::/\n", isDelegated); !errors.Is(err, ErrNoUnified) {
		t.Errorf("find without a v2 hierarchy: %v", err)
	}
	if _, err := find(mounts, "nonsense\n", isDelegated); err == nil {
		t.Error("find with malformed /proc/self/cgroup: no error")
	}
}

// On a v2 host whose root group passes on only what others enabled, a missing
// controller is named with the file that would have to list it.
func TestMissingController(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": "cpu pids\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := &Hierarchies{v2: dir}
	if got, err := h.Controller(pids); err != nil || got != dir {
		t.Errorf("Controller(pids) = %q, %v", got, err)
	}
	_, err := h.Controller(memory)
	if !errors.Is(err, ErrNoController) || !strings.Contains(err.Error(), "memory: ") || !strings.Contains(err.Error(), dir+"/cgroup.subtree_control") {
		t.Errorf("Controller(memory): %v", err)
	}
	h.delegated = true
	if got, err := h.Controller(memory); err != nil || got != dir {
		t.Errorf("Controller(memory) in a delegated group = %q, %v", got, err)
	}
}

func parseMounts(t *testing.T, text string) []*mountinfo.Info {
	t.Helper()
	mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(text), mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		t.Fatal(err)
	}
	return mounts
}
