package remote

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Receive adds the call that takes one descriptor out of a message on the Unix socket sock: one byte of data and
// SCM_RIGHTS (unix(7)). The function that it returns tells, once the batch has run, which number the descriptor got.
func (b *Batch) Receive(sock int) func() int {
	control := b.Space(32)
	iov := b.Words(uint64(b.Space(1)), 1)
	header := b.Words(0, 0, uint64(iov), 1, uint64(control), 24, 0) // struct msghdr
	b.Call("receive descriptor", unix.SYS_RECVMSG, sock, header, 0)
	return func() int { return int(int32(binary.LittleEndian.Uint32(b.Bytes(control+16, 4)))) }
}
