package tty_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/internal/objecttest"
	"vps/object"
	"vps/object/file"
	"vps/object/tty"
	"vps/remote"
)

func TestKinds(t *testing.T) {
	objecttest.RunKinds(t, []objecttest.KindTest{
		{
			Name: "pty with settings and what is buffered",
			Hold: `
skip, sl = os.openpty(); m, s = os.openpty(); os.close(skip); os.close(sl)
fcntl.ioctl(m, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 77, 1, 2))
t = termios.tcgetattr(s); t[3] &= ~termios.ECHO; t[6][termios.VINTR] = b'\x11'; termios.tcsetattr(s, termios.TCSANOW, t)
os.write(s, b'output\n'); os.write(m, b'line\n\x04half'); select.select([s], [], [])
m2, s2 = os.openpty(); t = termios.tcgetattr(s2); t[3] &= ~(termios.ICANON | termios.ECHO); termios.tcsetattr(s2, termios.TCSANOW, t); os.write(m2, b'raw\x04')
os.chmod('/dev/pts/1', 0o600); fcntl.ioctl(m2, termios.TIOCPKT, struct.pack('i', 1)); select.select([s2], [], [])
lonely = os.open('/dev/ptmx', os.O_RDWR)
ready(m=m, s=s, s2=s2, m2=m2, lonely=lonely)`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("m", "output\r\n", "s", "line\n", "s", "", "s", "(nothing)")
				r.Write("m", " more\n")
				r.WantReads("s", "half more\n", "s2", "raw\x04")
				r.Write("s2", "data")
				r.WantReads("m2", "\x00data")
			},
		},
		{
			Name: "terminal that was hung up",
			Hold: `
m, s = os.openpty(); os.close(m)
ready(s=s)`,
			Check: func(r *objecttest.Rig) {
				r.WantReads("s", "")
				r.Want("write", r.Write("s", "x"), unix.EIO.Error())
			},
		},
	})
}

// The terminal of a session whose master is outside: session and foreground group come back, and it can be hung up.
func TestControllingTerminal(t *testing.T) {
	h := objecttest.Hold(t, t.TempDir(), `
m, s = os.openpty()
leader = os.fork()
if leader == 0:
    os.close(m)
    os.setsid(); fcntl.ioctl(s, termios.TIOCSCTTY, 0)
    fg = os.fork()
    if fg == 0:
        while True: signal.pause()
    os.setpgid(fg, fg); os.tcsetpgrp(s, fg)
    tty = os.open('/dev/tty', os.O_RDWR)
    open('fg.new', 'w').write(str(fg)); os.rename('fg.new', 'fg')
    while True: signal.pause()
while not os.path.exists('fg'): time.sleep(0.01)
ready(leader=leader, fg=int(open('fg').read()), s=s)`)
	leader, fg := objecttest.ProcOf(t, h.FDs["leader"]), objecttest.ProcOf(t, h.FDs["fg"])
	b, err := objecttest.Take(t, file.Externals{ConsoleTTY: -1}, leader, fg)
	if err != nil {
		t.Fatal(err)
	}
	want := b.Set.Ttys[tty.ID(0)]
	if int(want.GetSession()) != leader.PID || int(want.GetForeground()) != fg.PID || !want.GetExternalMaster() {
		t.Fatalf("terminal %v, want session %d, group %d", want, leader.PID, fg.PID)
	}
	unix.Kill(fg.Host, unix.SIGKILL)
	h.Kill()

	r := objecttest.NewRig(t)
	r.FDs, r.Dir = h.FDs, h.Dir
	want.Foreground = uint32(r.Proc.PID)
	if err := r.Make(b); err != nil {
		t.Fatal(err)
	}
	err = r.Maker.Run(r.Context(), func(batch *remote.Batch) {
		batch.Call("ignore SIGHUP", unix.SYS_RT_SIGACTION, unix.SIGHUP, batch.Words(1, 0, 0, 0), 0, 8)
		if err := errors.Join(r.TTYs.SetTTY(batch, want.GetId()), r.TTYs.SetForeground(batch, want.GetId())); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	stat, err := object.ReadStat(r.Proc.Host)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := tty.Controlling(stat.TTY); err != nil || id != want.GetId() || stat.TPGID != r.Proc.PID {
		t.Errorf("controlling terminal %d, foreground %d, %v", id, stat.TPGID, err)
	}
	s := r.Maker.Page.Script(r.Context(), r.Maker.PidFD)
	if err := errors.Join(r.Files.Install(s, b.Set.FdTables[1]), s.Run()); err != nil {
		t.Fatal(err)
	}
	if err := r.Files.Close(); err != nil {
		t.Fatal(err)
	}
	r.WantReads("s", "")
}

// A snapshot is hostile input: whatever a record says, there is an error that names it, and no panic.
func TestHostileTtys(t *testing.T) {
	of := func(m *dump.Tty) *objecttest.Bag {
		b := objecttest.NewBag()
		b.Set.Ttys[1] = m
		return b
	}
	objecttest.RefuseAll(t, map[string]*objecttest.Bag{
		"terminal's index":    of(&dump.Tty{Id: 1, Index: 1 << 30}),
		"terminal's settings": of(&dump.Tty{Id: 1, Termios: &dump.Termios{Cc: []byte{1}}}),
		"other console":       of(&dump.Tty{Id: 1, Console: true, Termios: &dump.Termios{Cc: make([]byte, 19)}}),
	})
}
