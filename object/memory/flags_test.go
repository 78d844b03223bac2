package memory

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"vps/kmem"
	"vps/object"
)

// TestFlags compares what is read with smaps of a program that does nothing, before and after its flags were learnt.
func TestFlags(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	kernel, err := kmem.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	f, err := OpenFlags(kernel)
	if err != nil {
		t.Fatal(err)
	}
	const program = `
import mmap, sys
advice = mmap.MADV_DONTFORK, mmap.MADV_SEQUENTIAL, mmap.MADV_DONTDUMP, mmap.MADV_HUGEPAGE, mmap.MADV_RANDOM
keep = [mmap.mmap(-1, 1 << 20, flags=f) for f in (mmap.MAP_PRIVATE, mmap.MAP_SHARED) for _ in advice]
for m, a in zip(keep, advice * 2):
    m.madvise(a)
print("ready", flush=True)
sys.stdin.read()
`
	cmd := exec.Command("python3", "-c", program)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	level, err := object.ReadLevel(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := object.OpenProc(cmd.Process.Pid, level)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want, err := ReadAddressSpace(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range []bool{false, true} {
		got, err := f.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.vmas) != len(want.vmas) {
			t.Fatalf("%d mappings, want %d", len(got.vmas), len(want.vmas))
		}
		for i, v := range got.vmas {
			w := want.vmas[i]
			if v.name == "[vsyscall]" {
				continue
			}
			if v.start != w.start || v.name != w.name || !slices.Equal(v.flags, w.flags) {
				t.Errorf("known %v: %+v\nwant %+v", known, v, w)
			}
		}
		mappings, err := kernel.Mappings(p.PidFD)
		if err != nil {
			t.Fatal(err)
		}
		if !f.name(got.vmas, mappings) {
			t.Errorf("known %v: there are flags that are not", known)
		}
	}
}
