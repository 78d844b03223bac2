package linux

// INOTIFY_IOC_SETNEXTWD chooses the number of the next watch, if it is free: include/uapi/linux/inotify.h, in kernels with
// CONFIG_CHECKPOINT_RESTORE. Its argument is the number.
const INOTIFY_IOC_SETNEXTWD = 0x40044900
