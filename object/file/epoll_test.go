package file_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"vps/internal/objecttest"
)

// An epoll instance that is only on its way in a message still watches what it did.
func TestEpollInFlight(t *testing.T) {
	objecttest.RunKind(t, objecttest.KindTest{
		Hold: `
import array
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
e = libc.eventfd(1, 0); ep = select.epoll(); ep.register(e, select.EPOLLIN)
a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [ep.fileno()]))])
ep.close(); ready(b=b.fileno(), e=e)`,
		Check: func(r *objecttest.Rig) {
			control := make([]byte, unix.CmsgSpace(4))
			_, n, _, _, err := unix.Recvmsg(r.FD("b"), make([]byte, 10), control, 0)
			if err != nil {
				r.T.Fatal(err)
			}
			messages, err := unix.ParseSocketControlMessage(control[:n])
			if err != nil || len(messages) != 1 {
				r.T.Fatalf("%d control messages: %v", len(messages), err)
			}
			fds, err := unix.ParseUnixRights(&messages[0])
			if err != nil {
				r.T.Fatal(err)
			}
			defer unix.Close(fds[0])
			events := make([]unix.EpollEvent, 2)
			got, err := unix.EpollWait(fds[0], events, 0)
			if err != nil || got != 1 || int(events[0].Fd) != r.FDs["e"] {
				r.T.Errorf("%d events %+v: %v", got, events, err)
			}
		},
	})
}
