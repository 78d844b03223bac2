package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of shmctl(2), semctl(2) and msgctl(2), and flags: include/uapi/linux/{shm,sem,msg}.h.
const (
	SHM_DEST     = 0o1000 // in the mode of a segment: it goes with its last attachment
	SHM_LOCKED   = 0o2000
	SHM_LOCK     = 11
	SHM_INFO     = 14
	SHM_STAT_ANY = 15
	SHM_RDONLY   = 0o10000
	SHM_EXEC     = 0o100000

	GETPID       = 11
	GETALL       = 13
	SETVAL       = 16
	SEM_INFO     = 19
	SEM_STAT_ANY = 20
	SEM_UNDO     = 0x1000
	SEMVMX       = 32767

	MSG_INFO     = 12
	MSG_STAT_ANY = 13
	MSG_NOERROR  = 0o10000
	MSG_COPY     = 0o40000 // msgrcv(2): a copy of the n-th message
)

// SemidDs is struct semid64_ds of arch/x86/include/uapi/asm/sembuf.h.
type SemidDs struct {
	_     structs.HostLayout
	Perm  unix.SysvIpcPerm
	Otime int64
	_     uint64
	Ctime int64
	_     uint64
	Nsems uint64
	_     [2]uint64
}

// MsqidDs is struct msqid64_ds of include/uapi/asm-generic/msgbuf.h.
type MsqidDs struct {
	_      structs.HostLayout
	Perm   unix.SysvIpcPerm
	Stime  int64
	Rtime  int64
	Ctime  int64
	Cbytes uint64
	Qnum   uint64
	Qbytes uint64
	Lspid  int32
	Lrpid  int32
	_      [2]uint64
}

// Sembuf is struct sembuf of include/uapi/linux/sem.h.
type Sembuf struct {
	_   structs.HostLayout
	Num uint16
	Op  int16
	Flg int16
}

// Semctl is semctl(2) with an argument that is a pointer.
func Semctl(id, num, cmd int, arg unsafe.Pointer) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SEMCTL, uintptr(id), uintptr(num), uintptr(cmd), uintptr(arg), 0, 0)
	return result(n, errno)
}

// Msgctl is msgctl(2).
func Msgctl(id, cmd int, ds *MsqidDs) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_MSGCTL, uintptr(id), uintptr(cmd), uintptr(unsafe.Pointer(ds)))
	return result(n, errno)
}

// MsgCopy gives the type of the n-th message in a queue, and its data in buf, which has room for the type (8 bytes) before them.
func MsgCopy(id, n int, buf []byte) (size int, err error) {
	got, _, errno := unix.Syscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)-8), uintptr(n),
		MSG_COPY|unix.IPC_NOWAIT, 0)
	return result(got, errno)
}

func result(n uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
