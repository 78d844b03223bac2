package linux

import (
	"testing"
	"unsafe"
)

func TestUffdioLayout(t *testing.T) {
	for name, sizes := range map[string][2]uintptr{
		"struct uffdio_register": {unsafe.Sizeof(UffdioRegister{}), 32},
		"struct uffdio_copy":     {unsafe.Sizeof(UffdioCopy{}), 40},
		"struct uffdio_zeropage": {unsafe.Sizeof(UffdioZeropage{}), 32},
		"struct uffd_msg":        {unsafe.Sizeof(UffdMsg{}), 32},
		"uffd_msg.arg":           {unsafe.Offsetof(UffdMsg{}.Arg), 8},
		"uffdio_copy.copy":       {unsafe.Offsetof(UffdioCopy{}.Copy), 32},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s: %d, want %d", name, sizes[0], sizes[1])
		}
	}
}
