package remote

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// ReceiveAll adds the call that takes n descriptors out of one message on the Unix socket sock: one byte of data and
// SCM_RIGHTS (unix(7)), at most 253. They get the lowest free numbers, close-on-exec. The function that it returns tells,
// once the batch has run, which; fewer than n if that many did not come.
func (b *Batch) ReceiveAll(what string, sock, n int) func() []int {
	const header = 16 // struct cmsghdr
	size := header + (4*n+7)&^7
	control := b.Space(size)
	iov := b.Words(uint64(b.Space(1)), 1)
	msg := b.Words(0, 0, uint64(iov), 1, uint64(control), uint64(size), 0) // struct msghdr
	b.Call(what, unix.SYS_RECVMSG, sock, msg, unix.MSG_CMSG_CLOEXEC)
	return func() []int {
		data := b.Bytes(control, size)
		length := int(binary.LittleEndian.Uint64(data))
		var fds []int
		for at := header; at+4 <= min(length, size); at += 4 {
			fds = append(fds, int(int32(binary.LittleEndian.Uint32(data[at:]))))
		}
		return fds
	}
}
