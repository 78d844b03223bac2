package linux

// SIOCUNIXFILE opens the file that a Unix socket is bound to, with O_PATH; ENOENT: it is bound to none
// (SIOCPROTOPRIVATE of include/uapi/linux/un.h). It takes CAP_NET_ADMIN over the socket's network namespace.
const SIOCUNIXFILE = 0x89e0
