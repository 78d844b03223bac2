package object

import (
	"unsafe"

	"vps/remote"
)

// Place puts a kernel structure into the batch's slot.
func Place[T any](b *remote.Batch, v *T) remote.Address {
	return b.Data(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)))
}

// Space reserves room for a kernel structure that a call writes; the function reads it once the batch has run.
func Space[T any](b *remote.Batch) (remote.Address, func() T) {
	size := int(unsafe.Sizeof(*new(T)))
	a := b.Space(size)
	return a, func() (v T) {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), size), b.Bytes(a, size))
		return v
	}
}
