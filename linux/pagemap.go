package linux

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Categories of a page, PAGE_IS_* of include/uapi/linux/fs.h (Linux 6.7).
const (
	PAGE_IS_WPALLOWED = 1 << 0
	PAGE_IS_WRITTEN   = 1 << 1
	PAGE_IS_FILE      = 1 << 2
	PAGE_IS_PRESENT   = 1 << 3
	PAGE_IS_SWAPPED   = 1 << 4
	PAGE_IS_PFNZERO   = 1 << 5
	PAGE_IS_HUGE      = 1 << 6
	PAGE_IS_GUARD     = 1 << 8 // Linux 6.15
)

// Flags of a scan, PM_SCAN_* of include/uapi/linux/fs.h.
const (
	PM_SCAN_WP_MATCHING   = 1 << 0 // protect the pages found against writing, where a userfaultfd tracks them
	PM_SCAN_CHECK_WPASYNC = 1 << 1 // EPERM where none does
)

// PageRegion is struct page_region of include/uapi/linux/fs.h.
type PageRegion struct {
	_          structs.HostLayout
	Start, End uint64
	Categories uint64
}

// PMScanArg is struct pm_scan_arg of include/uapi/linux/fs.h.
type PMScanArg struct {
	_                 structs.HostLayout
	Size              uint64
	Flags             uint64
	Start, End        uint64
	WalkEnd           uint64
	Vec, VecLen       uint64
	MaxPages          uint64
	CategoryInverted  uint64
	CategoryMask      uint64
	CategoryAnyofMask uint64
	ReturnMask        uint64
}

const pagemapScan = 0xc0606610 // PAGEMAP_SCAN: _IOWR('f', 16, struct pm_scan_arg)

// PagemapScan finds the pages of a category in a range (PAGEMAP_SCAN on /proc/PID/pagemap, Linux 6.7).
// It fills vec and returns how many entries it used. If it used all, it came as far as the last one.
func PagemapScan(fd int, arg *PMScanArg, vec []PageRegion) (int, error) {
	arg.Size = uint64(unsafe.Sizeof(*arg))
	arg.Vec, arg.VecLen = uint64(uintptr(unsafe.Pointer(&vec[0]))), uint64(len(vec))
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
