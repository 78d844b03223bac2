package pipe_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/object"
	"vps/object/file"
)

func TestKinds(t *testing.T) {
	objecttest.RunKinds(t, []objecttest.KindTest{
		{
			Name: "pipe in use",
			Hold: `
r, w = os.pipe(); os.write(w, b'in the pipe')
fcntl.fcntl(w, 1031, 4096)
fcntl.fcntl(w, fcntl.F_SETFL, os.O_NONBLOCK)
w2 = os.open('/proc/self/fd/%d' % w, os.O_WRONLY)
lone, x = os.pipe(); os.write(x, b'last words'); os.close(x)
y, broken = os.pipe(); os.close(y)
ready(r=r, w=w, w2=w2, lone=lone, broken=broken)`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("r", "in the pipe", "r", "(nothing)")
				r.Write("w2", "more")
				r.WantReads("r", "more", "lone", "last words", "lone", "")
				r.Want("write to no reader", r.Write("broken", "x"), unix.EPIPE.Error())
				if size, _ := unix.FcntlInt(uintptr(r.FD("w")), unix.F_GETPIPE_SZ, 0); size != 4096 {
					r.T.Errorf("pipe of %d bytes", size)
				}
			},
		},
		{
			Name:  "pipe with packets",
			Hold:  "r, w = os.pipe2(os.O_DIRECT); os.write(w, b'one'); os.write(w, b'two'); ready(r=r, w=w)",
			Check: func(r *objecttest.Rig) { r.WantReads("r", "one", "r", "two") },
		},
		{
			Name: "FIFO",
			Hold: `
os.mkfifo('fifo'); r = os.open('fifo', os.O_RDONLY|os.O_NONBLOCK); w = os.open('fifo', os.O_WRONLY); os.write(w, b'through')
os.mkfifo('lost'); lr = os.open('lost', os.O_RDONLY|os.O_NONBLOCK); lw = os.open('lost', os.O_WRONLY); os.unlink('lost'); os.write(lw, b'lost')
ready(r=r, w=w, lr=lr)`,
			Check: func(r *objecttest.Rig) { r.WantReads("r", "through", "lr", "lost") },
		},
	})
}

// Whatever lies outside of the instance is refused or, if it is ours, hung up after the restore.
func TestExternalPipes(t *testing.T) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	in, out := os.NewFile(uintptr(ends[0]), "in"), os.NewFile(uintptr(ends[1]), "out")
	defer in.Close()
	defer out.Close()
	out.WriteString("unread input")
	h := objecttest.HoldWith(t, t.TempDir(), "ready(stdin=0)", in)
	in.Close()
	if _, err := objecttest.Take(t, file.Externals{ConsoleTTY: -1}, h.Proc); !errors.Is(err, object.ErrUnsupported) || !strings.Contains(err.Error(), "outside") {
		t.Fatalf("dump with a foreign pipe: %v", err)
	}
	var st unix.Stat_t
	unix.Fstat(int(out.Fd()), &st)
	b, err := objecttest.Take(t, file.Externals{ConsoleTTY: -1, Pipes: map[uint64]bool{st.Ino: true}}, h.Proc)
	if err != nil {
		t.Fatal(err)
	}
	h.Kill()
	r := objecttest.NewRig(t)
	r.FDs, r.Dir = h.FDs, h.Dir
	if err := r.Restore(b, h.Proc.PID); err != nil {
		t.Fatal(err)
	}
	r.WantReads("stdin", "unread input", "stdin", "")
}

// A snapshot is hostile input: what does not fit is an error, and nothing waits.
func TestTooFull(t *testing.T) {
	full := objecttest.NewBag()
	full.Set.Pipes[1] = &dump.Pipe{Id: 1, Capacity: 4096, Packets: [][]byte{make([]byte, 8192)}}
	objecttest.RefuseAll(t, map[string]*objecttest.Bag{"too full": full})
}
