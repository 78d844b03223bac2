package linux

import "structs"

// UnixDiagReq asks for Unix sockets over NETLINK_SOCK_DIAG: struct unix_diag_req of include/uapi/linux/unix_diag.h.
type UnixDiagReq struct {
	_        structs.HostLayout
	Family   uint8
	Protocol uint8
	Pad      uint16
	States   uint32 // bit mask of TCP_ states
	Ino      uint32
	Show     uint32 // UDIAG_SHOW_
	Cookie   [2]uint32
}

// UnixDiagMsg is the answer for one socket; attributes follow it: struct unix_diag_msg of include/uapi/linux/unix_diag.h.
type UnixDiagMsg struct {
	_      structs.HostLayout
	Family uint8
	Type   uint8 // SOCK_
	State  uint8 // TCP_
	Pad    uint8
	Ino    uint32 // 0: accepted by nobody yet
	Cookie [2]uint32
}

// What a UnixDiagReq wants to see.
const (
	UDIAG_SHOW_NAME    = 0x01
	UDIAG_SHOW_VFS     = 0x02
	UDIAG_SHOW_PEER    = 0x04
	UDIAG_SHOW_ICONS   = 0x08
	UDIAG_SHOW_RQLEN   = 0x10
	UDIAG_SHOW_MEMINFO = 0x20
	UDIAG_SHOW_UID     = 0x40
)

// Attributes of a UnixDiagMsg.
const (
	UNIX_DIAG_NAME     = 0 // bytes of sun_path
	UNIX_DIAG_VFS      = 1 // u32 inode, u32 device
	UNIX_DIAG_PEER     = 2 // u32 inode
	UNIX_DIAG_ICONS    = 3 // u32 inodes of the clients that wait to be accepted
	UNIX_DIAG_RQLEN    = 4 // u32 received, u32 sent; of a listener: waiting, backlog
	UNIX_DIAG_MEMINFO  = 5
	UNIX_DIAG_SHUTDOWN = 6 // u8: 1 reading, 2 writing
	UNIX_DIAG_UID      = 7
)
