package linux

import "structs"

// TCPRepairWindow is the value of TCP_REPAIR_WINDOW: struct tcp_repair_window of include/uapi/linux/tcp.h.
type TCPRepairWindow struct {
	_         structs.HostLayout
	SndWl1    uint32
	SndWnd    uint32
	MaxWindow uint32
	RcvWnd    uint32
	RcvWup    uint32
}

// TCPRepairOpt is an element of TCP_REPAIR_OPTIONS: struct tcp_repair_opt of include/uapi/linux/tcp.h.
type TCPRepairOpt struct {
	_    structs.HostLayout
	Code uint32 // TCPOPT_
	Val  uint32
}

// Codes of a TCPRepairOpt (include/net/tcp.h), and options of TCPInfo.Options (include/uapi/linux/tcp.h).
const (
	TCPOPT_MSS       = 2
	TCPOPT_WINDOW    = 3 // the sender's scale, and the receiver's in the upper half
	TCPOPT_SACK_PERM = 4
	TCPOPT_TIMESTAMP = 8

	TCPI_OPT_TIMESTAMPS = 1
	TCPI_OPT_SACK       = 2
	TCPI_OPT_WSCALE     = 4
	TCPI_OPT_SYN_DATA   = 32
)

// Requests of ioctl(2) that golang.org/x/sys/unix lacks (include/uapi/asm-generic/sockios.h, include/uapi/linux/sockios.h).
const (
	SIOCATMARK  = 0x8905
	SIOCOUTQNSD = 0x894b
)

// Values of TCP_REPAIR_QUEUE (include/uapi/linux/tcp.h).
const (
	TCP_NO_QUEUE   = 0
	TCP_RECV_QUEUE = 1
	TCP_SEND_QUEUE = 2
)
