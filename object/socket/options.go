package socket

import (
	"golang.org/x/sys/unix"

	"vps/linux"
)

// option is a socket option, which is restored when it is not what a new socket has.
type option struct {
	name  string
	level int
	get   int // its number, for getsockopt(2)
	flags optionFlags
}

type optionFlags uint8

const (
	early    optionFlags = 1 << iota // to be set before bind(2) and connect(2)
	last                             // to be set after everything else
	halved                           // the kernel doubles what is set (socket(7))
	admin                            // takes CAP_NET_ADMIN over the network namespace
	messages                         // streams do not have it, even if they tell of it
	special                          // it is not always what was set: its kind of socket reads it
)

// maxOption bounds an option's value: an extension header of IPv6 may have as much.
const maxOption = 2048

// options lists what can be read, and set to what was read, in the order of setting. Each kind of socket has some of them;
// the rest fail.
var options = []option{
	{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, early},
	{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, early},
	{"SO_BROADCAST", unix.SOL_SOCKET, unix.SO_BROADCAST, early},
	{"SO_BINDTODEVICE", unix.SOL_SOCKET, unix.SO_BINDTODEVICE, early},
	{"SO_DONTROUTE", unix.SOL_SOCKET, unix.SO_DONTROUTE, 0},
	{"SO_DEBUG", unix.SOL_SOCKET, unix.SO_DEBUG, admin},
	{"SO_OOBINLINE", unix.SOL_SOCKET, unix.SO_OOBINLINE, early},
	{"SO_NO_CHECK", unix.SOL_SOCKET, unix.SO_NO_CHECK, 0},
	{"SO_LINGER", unix.SOL_SOCKET, unix.SO_LINGER, 0},
	{"SO_PASSCRED", unix.SOL_SOCKET, unix.SO_PASSCRED, 0},
	{"SO_PASSSEC", unix.SOL_SOCKET, unix.SO_PASSSEC, 0},
	{"SO_PASSPIDFD", unix.SOL_SOCKET, unix.SO_PASSPIDFD, 0},
	{"SO_TIMESTAMP", unix.SOL_SOCKET, unix.SO_TIMESTAMP, 0},
	{"SO_TIMESTAMPNS", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 0},
	{"SO_TIMESTAMP_NEW", unix.SOL_SOCKET, unix.SO_TIMESTAMP_NEW, 0},
	{"SO_TIMESTAMPNS_NEW", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 0},
	{"SO_TIMESTAMPING", unix.SOL_SOCKET, unix.SO_TIMESTAMPING, 0},
	{"SO_TIMESTAMPING_NEW", unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW, 0},
	{"SO_RCVTIMEO", unix.SOL_SOCKET, unix.SO_RCVTIMEO, 0},
	{"SO_SNDTIMEO", unix.SOL_SOCKET, unix.SO_SNDTIMEO, 0},
	{"SO_RXQ_OVFL", unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 0},
	{"SO_WIFI_STATUS", unix.SOL_SOCKET, unix.SO_WIFI_STATUS, 0},
	{"SO_NOFCS", unix.SOL_SOCKET, unix.SO_NOFCS, 0},
	{"SO_SELECT_ERR_QUEUE", unix.SOL_SOCKET, unix.SO_SELECT_ERR_QUEUE, 0},
	{"SO_BUSY_POLL", unix.SOL_SOCKET, unix.SO_BUSY_POLL, admin},
	{"SO_PREFER_BUSY_POLL", unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL, admin},
	{"SO_BUSY_POLL_BUDGET", unix.SOL_SOCKET, unix.SO_BUSY_POLL_BUDGET, admin},
	{"SO_MAX_PACING_RATE", unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, 0},
	{"SO_ZEROCOPY", unix.SOL_SOCKET, unix.SO_ZEROCOPY, 0},
	{"SO_TXTIME", unix.SOL_SOCKET, unix.SO_TXTIME, admin},
	{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, early | admin},
	{"SO_RCVMARK", unix.SOL_SOCKET, unix.SO_RCVMARK, 0},
	{"SO_RCVPRIORITY", unix.SOL_SOCKET, unix.SO_RCVPRIORITY, 0},
	{"SO_TXREHASH", unix.SOL_SOCKET, unix.SO_TXREHASH, 0},
	{"SO_PEEK_OFF", unix.SOL_SOCKET, unix.SO_PEEK_OFF, last},

	{"IP_HDRINCL", unix.IPPROTO_IP, unix.IP_HDRINCL, 0},
	{"IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT, early | admin},
	{"IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND, last},
	{"IP_BIND_ADDRESS_NO_PORT", unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 0},
	{"IP_LOCAL_PORT_RANGE", unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, 0},
	{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, 0},
	{"IP_TTL", unix.IPPROTO_IP, unix.IP_TTL, 0},
	{"IP_MINTTL", unix.IPPROTO_IP, unix.IP_MINTTL, last},
	{"IP_OPTIONS", unix.IPPROTO_IP, unix.IP_OPTIONS, 0},
	{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, 0},
	{"IP_NODEFRAG", unix.IPPROTO_IP, unix.IP_NODEFRAG, 0},
	{"IP_RECVOPTS", unix.IPPROTO_IP, unix.IP_RECVOPTS, 0},
	{"IP_RETOPTS", unix.IPPROTO_IP, unix.IP_RETOPTS, 0},
	{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 0},
	{"IP_RECVERR", unix.IPPROTO_IP, unix.IP_RECVERR, 0},
	{"IP_RECVERR_RFC4884", unix.IPPROTO_IP, unix.IP_RECVERR_RFC4884, 0},
	{"IP_RECVTTL", unix.IPPROTO_IP, unix.IP_RECVTTL, 0},
	{"IP_RECVTOS", unix.IPPROTO_IP, unix.IP_RECVTOS, 0},
	{"IP_RECVORIGDSTADDR", unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, 0},
	{"IP_RECVFRAGSIZE", unix.IPPROTO_IP, unix.IP_RECVFRAGSIZE, 0},
	{"IP_PASSSEC", unix.IPPROTO_IP, unix.IP_PASSSEC, 0},
	{"IP_CHECKSUM", unix.IPPROTO_IP, unix.IP_CHECKSUM, 0},
	{"IP_UNICAST_IF", unix.IPPROTO_IP, unix.IP_UNICAST_IF, 0},
	{"IP_MULTICAST_IF", unix.IPPROTO_IP, unix.IP_MULTICAST_IF, messages},
	{"IP_MULTICAST_TTL", unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, messages},
	{"IP_MULTICAST_LOOP", unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, messages},
	{"IP_MULTICAST_ALL", unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, messages},

	{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, early},
	{"IPV6_TRANSPARENT", unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, early | admin},
	{"IPV6_FREEBIND", unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, last},
	{"IPV6_HDRINCL", unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 0},
	{"IPV6_CHECKSUM", unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, 0},
	{"IPV6_UNICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 0},
	{"IPV6_MINHOPCOUNT", unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, last},
	{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0},
	{"IPV6_FLOWINFO_SEND", unix.IPPROTO_IPV6, linux.IPV6_FLOWINFO_SEND, early},
	{"IPV6_AUTOFLOWLABEL", unix.IPPROTO_IPV6, unix.IPV6_AUTOFLOWLABEL, 0},
	{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, 0},
	{"IPV6_DONTFRAG", unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 0},
	{"IPV6_ADDR_PREFERENCES", unix.IPPROTO_IPV6, unix.IPV6_ADDR_PREFERENCES, 0},
	{"IPV6_RECVERR", unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 0},
	{"IPV6_RECVERR_RFC4884", unix.IPPROTO_IPV6, unix.IPV6_RECVERR_RFC4884, 0},
	{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 0},
	{"IPV6_2292PKTINFO", unix.IPPROTO_IPV6, unix.IPV6_2292PKTINFO, 0},
	{"IPV6_RECVHOPLIMIT", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 0},
	{"IPV6_2292HOPLIMIT", unix.IPPROTO_IPV6, unix.IPV6_2292HOPLIMIT, 0},
	{"IPV6_RECVRTHDR", unix.IPPROTO_IPV6, unix.IPV6_RECVRTHDR, 0},
	{"IPV6_2292RTHDR", unix.IPPROTO_IPV6, unix.IPV6_2292RTHDR, 0},
	{"IPV6_RECVHOPOPTS", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPOPTS, 0},
	{"IPV6_2292HOPOPTS", unix.IPPROTO_IPV6, unix.IPV6_2292HOPOPTS, 0},
	{"IPV6_RECVDSTOPTS", unix.IPPROTO_IPV6, unix.IPV6_RECVDSTOPTS, 0},
	{"IPV6_2292DSTOPTS", unix.IPPROTO_IPV6, unix.IPV6_2292DSTOPTS, 0},
	{"IPV6_RECVTCLASS", unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 0},
	{"IPV6_FLOWINFO", unix.IPPROTO_IPV6, linux.IPV6_FLOWINFO, 0},
	{"IPV6_RECVPATHMTU", unix.IPPROTO_IPV6, unix.IPV6_RECVPATHMTU, 0},
	{"IPV6_RECVORIGDSTADDR", unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR, 0},
	{"IPV6_RECVFRAGSIZE", unix.IPPROTO_IPV6, unix.IPV6_RECVFRAGSIZE, 0},
	{"IPV6_HOPOPTS", unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, admin},
	{"IPV6_RTHDRDSTOPTS", unix.IPPROTO_IPV6, unix.IPV6_RTHDRDSTOPTS, admin},
	{"IPV6_RTHDR", unix.IPPROTO_IPV6, unix.IPV6_RTHDR, admin},
	{"IPV6_DSTOPTS", unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, admin},
	{"IPV6_UNICAST_IF", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_IF, 0},
	{"IPV6_MULTICAST_IF", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, messages},
	{"IPV6_MULTICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, messages},
	{"IPV6_MULTICAST_LOOP", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, messages},
	{"IPV6_MULTICAST_ALL", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, messages},

	{"UDP_CORK", unix.IPPROTO_UDP, unix.UDP_CORK, last},
	{"UDP_ENCAP", unix.IPPROTO_UDP, unix.UDP_ENCAP, 0},
	{"UDP_NO_CHECK6_TX", unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 0},
	{"UDP_NO_CHECK6_RX", unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 0},
	{"UDP_SEGMENT", unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0},
	{"UDP_GRO", unix.IPPROTO_UDP, unix.UDP_GRO, 0},
	{"UDPLITE_SEND_CSCOV", unix.IPPROTO_UDPLITE, linux.UDPLITE_SEND_CSCOV, 0},
	{"UDPLITE_RECV_CSCOV", unix.IPPROTO_UDPLITE, linux.UDPLITE_RECV_CSCOV, 0},
	{"ICMP_FILTER", unix.SOL_RAW, unix.ICMP_FILTER, 0},
	{"ICMPV6_FILTER", unix.SOL_ICMPV6, unix.ICMPV6_FILTER, 0},

	{"TCP_MAXSEG", unix.IPPROTO_TCP, unix.TCP_MAXSEG, early | special},
	{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, last},
	{"TCP_CORK", unix.IPPROTO_TCP, unix.TCP_CORK, last},
	{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 0},
	{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 0},
	{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 0},
	{"TCP_SYNCNT", unix.IPPROTO_TCP, unix.TCP_SYNCNT, early},
	{"TCP_LINGER2", unix.IPPROTO_TCP, unix.TCP_LINGER2, 0},
	{"TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, early},
	{"TCP_WINDOW_CLAMP", unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, 0},
	{"TCP_CONGESTION", unix.IPPROTO_TCP, unix.TCP_CONGESTION, early},
	{"TCP_THIN_LINEAR_TIMEOUTS", unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS, 0},
	{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0},
	{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 0},
	{"TCP_SAVE_SYN", unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, early},
	{"TCP_FASTOPEN", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, early},
	{"TCP_FASTOPEN_CONNECT", unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, early},
	{"TCP_FASTOPEN_KEY", unix.IPPROTO_TCP, unix.TCP_FASTOPEN_KEY, early},
	{"TCP_FASTOPEN_NO_COOKIE", unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, early},
	{"TCP_INQ", unix.IPPROTO_TCP, unix.TCP_INQ, 0},
	{"TCP_TX_DELAY", unix.IPPROTO_TCP, unix.TCP_TX_DELAY, 0},
	{"TCP_RTO_MAX_MS", unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, 0},
	{"TCP_RTO_MIN_US", unix.IPPROTO_TCP, unix.TCP_RTO_MIN_US, 0},
	{"TCP_DELACK_MAX_US", unix.IPPROTO_TCP, unix.TCP_DELACK_MAX_US, 0},

	{"NETLINK_PKTINFO", unix.SOL_NETLINK, unix.NETLINK_PKTINFO, 0},
	{"NETLINK_BROADCAST_ERROR", unix.SOL_NETLINK, unix.NETLINK_BROADCAST_ERROR, 0},
	{"NETLINK_NO_ENOBUFS", unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 0},
	{"NETLINK_CAP_ACK", unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 0},
	{"NETLINK_EXT_ACK", unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 0},
	{"NETLINK_GET_STRICT_CHK", unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 0},

	{"PACKET_VERSION", unix.SOL_PACKET, unix.PACKET_VERSION, early},
	{"PACKET_AUXDATA", unix.SOL_PACKET, unix.PACKET_AUXDATA, 0},
	{"PACKET_ORIGDEV", unix.SOL_PACKET, unix.PACKET_ORIGDEV, 0},
	{"PACKET_RESERVE", unix.SOL_PACKET, unix.PACKET_RESERVE, early},
	{"PACKET_LOSS", unix.SOL_PACKET, unix.PACKET_LOSS, early},
	{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, early},
	{"PACKET_TIMESTAMP", unix.SOL_PACKET, unix.PACKET_TIMESTAMP, 0},
	{"PACKET_TX_HAS_OFF", unix.SOL_PACKET, unix.PACKET_TX_HAS_OFF, early},
	{"PACKET_QDISC_BYPASS", unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 0},
	{"PACKET_IGNORE_OUTGOING", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 0},

	// Those that others set too: IP_TOS the priority, TCP_WINDOW_CLAMP and SO_RCVLOWAT the buffer.
	{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, admin},
	{"SO_RCVLOWAT", unix.SOL_SOCKET, unix.SO_RCVLOWAT, last},
	{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, last | halved},
	{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, last | halved},
	{"SO_BUF_LOCK", unix.SOL_SOCKET, unix.SO_BUF_LOCK, last}, // after the sizes, which set it
	{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, last},
	{"SO_LOCK_FILTER", unix.SOL_SOCKET, unix.SO_LOCK_FILTER, last},
}
