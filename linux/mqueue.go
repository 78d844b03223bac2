package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MQUEUE_MAGIC is the type of the file system of POSIX message queues, as statfs(2) gives it (ipc/mqueue.c).
const MQUEUE_MAGIC = 0x19800202

// MqAttr is struct mq_attr of include/uapi/linux/mqueue.h.
type MqAttr struct {
	_       structs.HostLayout
	Flags   int64
	Maxmsg  int64
	Msgsize int64
	Curmsgs int64
	_       [4]int64
}

// MqGetattr gets the attributes of the message queue that a descriptor is open on (mq_getsetattr(2)).
func MqGetattr(fd int) (MqAttr, error) {
	var attr MqAttr
	_, _, errno := unix.Syscall(unix.SYS_MQ_GETSETATTR, uintptr(fd), 0, uintptr(unsafe.Pointer(&attr)))
	if errno != 0 {
		return attr, errno
	}
	return attr, nil
}
