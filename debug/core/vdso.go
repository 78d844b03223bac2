package core

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// vdso returns the code that the kernel maps into every process, vdso(7), if kernel is the one that runs here: it is not
// in a snapshot, and a debugger wants to see it. Nil if there is none, or another one.
func vdso(kernel string, size uint64) []byte {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil || unix.ByteSliceToString(u.Release[:]) != kernel {
		return nil
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(maps) {
		if !strings.HasSuffix(strings.TrimSpace(string(line)), "[vdso]") {
			continue
		}
		var start, end uint64
		if _, err := fmt.Sscanf(string(line), "%x-%x", &start, &end); err != nil || end-start != size {
			return nil
		}
		memory, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil
		}
		defer memory.Close()
		code := make([]byte, size)
		if _, err := memory.ReadAt(code, int64(start)); err != nil {
			return nil
		}
		return code
	}
	return nil
}
