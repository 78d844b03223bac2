package network

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vps/object"
)

func TestSysctls(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 300000, Size: 65536}}
	namespace := func() int {
		cmd := exec.Command("sleep", "60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
		return cmd.Process.Pid
	}
	from, to := namespace(), namespace()
	want := map[string]string{
		"net/unix/max_dgram_qlen": "77", "net/ipv4/ping_group_range": "40000\t50000", "net/ipv4/ip_forward": "1",
		"net/ipv4/conf/lo/rp_filter": "2", "net/ipv4/ip_local_port_range": "20000\t30001", "net/ipv6/conf/default/hop_limit": "33",
		"net/ipv4/conf/all/forwarding": "1", "net/ipv4/conf/lo/forwarding": "0",
	}
	set := func(pid int, name, value string) {
		t.Helper()
		idmaps, err := object.ReadIDMaps(pid)
		if err == nil {
			err = object.InNamespace(pid, "net", unix.CLONE_NEWNET, func() error { return set(name, value, idmaps) })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"net/ipv4/ip_forward"}
	for name := range want {
		names = append(names, name)
	}
	slices.SortFunc(names, bySetting)
	for _, name := range names {
		set(from, name, want[name])
	}
	start := time.Now()
	recorded, err := ReadSysctls(from)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d settings read in %v", len(recorded), time.Since(start))
	for name, value := range want {
		if recorded[name] != value {
			t.Errorf("%s: read %q, want %q", name, recorded[name], value)
		}
	}
	recorded["net/../../../"+filepath.Join(t.TempDir(), "x")] = "hostile"
	recorded["net/ipv4/conf/eth7/rp_filter"] = "1" // not there
	recorded["kernel/msgmax"] = "1"
	start = time.Now()
	if err := RestoreSysctls(to, recorded); err != nil {
		t.Fatal(err)
	}
	t.Logf("set in %v", time.Since(start))
	got, err := ReadSysctls(to)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %q, want %q", name, got[name], value)
		}
	}
	recorded["net/ipv4/conf/lo/rp_filter"] = "nonsense"
	if err := RestoreSysctls(to, recorded); err == nil {
		t.Error("nonsense is accepted")
	}
	if len(recorded) > 30 {
		t.Errorf("%d settings differ from those of a new namespace", len(recorded))
	}
	if own, err := ReadSysctls(os.Getpid()); err != nil || len(own) > 0 {
		t.Errorf("%d settings of our own namespace, %v", len(own), err)
	}
}
