package object

import (
	"errors"
	"testing"
	"vps/dump"
	"vps/remote"

	"golang.org/x/sys/unix"
)

func TestTtyKinds(t *testing.T) {
	runKinds(t, []kindTest{
		{
			name: "pty with settings and what is buffered",
			hold: `
skip, sl = os.openpty(); m, s = os.openpty(); os.close(skip); os.close(sl)
fcntl.ioctl(m, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 77, 1, 2))
t = termios.tcgetattr(s); t[3] &= ~termios.ECHO; t[6][termios.VINTR] = b'\x11'; termios.tcsetattr(s, termios.TCSANOW, t)
os.write(s, b'output\n'); os.write(m, b'line\n\x04half'); select.select([s], [], [])
m2, s2 = os.openpty(); t = termios.tcgetattr(s2); t[3] &= ~(termios.ICANON | termios.ECHO); termios.tcsetattr(s2, termios.TCSANOW, t); os.write(m2, b'raw\x04')
os.chmod('/dev/pts/1', 0o600); fcntl.ioctl(m2, termios.TIOCPKT, struct.pack('i', 1)); select.select([s2], [], [])
lonely = os.open('/dev/ptmx', os.O_RDWR)
ready(m=m, s=s, s2=s2, m2=m2, lonely=lonely)`,
			check: func(r *rig) {
				r.wantReads("m", "output\r\n", "s", "line\n", "s", "", "s", "(nothing)")
				r.write("m", " more\n")
				r.wantReads("s", "half more\n", "s2", "raw\x04")
				r.write("s2", "data")
				r.wantReads("m2", "\x00data")
			},
		},
		{
			name: "terminal that was hung up",
			hold: `
m, s = os.openpty(); os.close(m)
ready(s=s)`,
			check: func(r *rig) {
				r.wantReads("s", "")
				r.want("write", r.write("s", "x"), unix.EIO.Error())
			},
		},
	})
}

// The terminal of a session whose master is outside: session and foreground group come back, and it can be hung up.
func TestControllingTerminal(t *testing.T) {
	h := hold(t, t.TempDir(), `
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
	leader, fg := procOf(t, h.fds["leader"]), procOf(t, h.fds["fg"])
	b, err := take(t, Externals{ConsoleTTY: -1}, leader, fg)
	if err != nil {
		t.Fatal(err)
	}
	tty := b.set.Ttys[TtyID(0)]
	if int(tty.GetSession()) != leader.PID || int(tty.GetForeground()) != fg.PID || !tty.GetExternalMaster() {
		t.Fatalf("terminal %v, want session %d, group %d", tty, leader.PID, fg.PID)
	}
	unix.Kill(fg.Host, unix.SIGKILL)
	h.kill()

	r := newRig(t)
	r.fds, r.dir = h.fds, h.dir
	tty.Foreground = uint32(r.proc.PID)
	if err := r.make(b); err != nil {
		t.Fatal(err)
	}
	err = r.m.Run(r.ctx(), func(batch *remote.Batch) {
		batch.Call("ignore SIGHUP", unix.SYS_RT_SIGACTION, unix.SIGHUP, batch.Words(1, 0, 0, 0), 0, 8)
		if err := errors.Join(r.ttys.SetTTY(batch, tty.GetId()), r.ttys.SetForeground(batch, tty.GetId())); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	stat, err := ReadStat(r.proc.Host)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := ControllingTTY(stat.TTY); err != nil || id != tty.GetId() || stat.TPGID != r.proc.PID {
		t.Errorf("controlling terminal %d, foreground %d, %v", id, stat.TPGID, err)
	}
	s := r.m.Page.Script(r.ctx(), r.m.PidFD)
	if err := errors.Join(r.files.Install(s, uint32(r.proc.PID), b.set.FdTables[1]), s.Run()); err != nil {
		t.Fatal(err)
	}
	if err := r.files.Close(); err != nil {
		t.Fatal(err)
	}
	r.wantReads("s", "")
}

// A snapshot is hostile input: whatever a record says, there is an error that names it, and no panic.
func TestHostileTtys(t *testing.T) {
	tty := func(m *dump.Tty) *bag {
		b := newBag()
		b.set.Ttys[1] = m
		return b
	}
	refuseAll(t, map[string]*bag{
		"terminal's index":    tty(&dump.Tty{Id: 1, Index: 1 << 30}),
		"terminal's settings": tty(&dump.Tty{Id: 1, Termios: &dump.Termios{Cc: []byte{1}}}),
		"other console":       tty(&dump.Tty{Id: 1, Console: true, Termios: &dump.Termios{Cc: make([]byte, 19)}}),
	})
}
