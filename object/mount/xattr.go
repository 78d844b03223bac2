package mount

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
)

// maxXattr is how long an extended attribute may be.
const maxXattr = 8 << 10

// The attributes whose values name users, in another way to each of the kernel's namespaces.
const (
	capability = "security.capability" // struct vfs_cap_data, include/uapi/linux/capability.h
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// keptXattr tells whether an attribute is one that an instance can set.
func keptXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || name == capability || name == accessACL || name == defaultACL
}

// xattrs reads the extended attributes of a file (xattr(7)), as the instance sees them.
func xattrs(parent *os.File, name string, ids object.IDMaps) (map[string][]byte, error) {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", parent.Fd(), name)
	size, err := unix.Llistxattr(path, nil)
	if err == unix.EOPNOTSUPP || err == nil && size == 0 {
		return nil, nil
	}
	buf := make([]byte, size)
	if err == nil {
		size, err = unix.Llistxattr(path, buf)
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	values := make(map[string][]byte)
	for attribute := range strings.SplitSeq(strings.TrimRight(string(buf[:size]), "\x00"), "\x00") {
		if !keptXattr(attribute) {
			continue
		}
		value := make([]byte, maxXattr)
		n, err := unix.Lgetxattr(path, attribute, value)
		if err == nil {
			values[attribute], err = insideXattr(attribute, value[:n], ids)
		}
		if err != nil {
			return nil, fmt.Errorf("extended attribute %s: %w", attribute, err)
		}
	}
	return values, nil
}

// insideXattr translates the ids in a value to those of the instance.
func insideXattr(name string, value []byte, ids object.IDMaps) ([]byte, error) {
	switch name {
	case capability:
		return insideCapability(value, ids)
	case accessACL, defaultACL:
		return value, insideACL(value, ids)
	}
	return value, nil
}

// insideCapability makes capabilities of a file that hold for one user namespace such as its root sets.
func insideCapability(value []byte, ids object.IDMaps) ([]byte, error) {
	const revisions, revision2, revision3 = 0xff000000, 0x02000000, 0x03000000
	const size2, size3 = 20, 24
	if len(value) != size3 || binary.LittleEndian.Uint32(value)&revisions != revision3 {
		return value, nil
	}
	root, err := ids.UID(binary.LittleEndian.Uint32(value[size2:]))
	if err != nil || root != 0 {
		return nil, fmt.Errorf("of another user namespace: %w", object.ErrUnsupported)
	}
	binary.LittleEndian.PutUint32(value, binary.LittleEndian.Uint32(value)&^revisions|revision2)
	return value[:size2], nil
}

// insideACL translates the ids in an access control list (include/uapi/linux/posix_acl_xattr.h).
func insideACL(value []byte, ids object.IDMaps) error {
	const headerSize, entrySize, idAt = 4, 8, 4
	const user, group = 0x02, 0x08
	for rest := value[min(headerSize, len(value)):]; len(rest) >= entrySize; rest = rest[entrySize:] {
		translate := map[uint16]func(uint32) (uint32, error){user: ids.UID, group: ids.GID}[binary.LittleEndian.Uint16(rest)]
		if translate == nil {
			continue
		}
		id, err := translate(binary.LittleEndian.Uint32(rest[idAt:]))
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(rest[idAt:], id)
	}
	return nil
}

// setXattrs gives what a descriptor of the maker is open on its extended attributes.
func (r *restorer) setXattrs(fd int64, path string, in *dump.Inode) {
	for _, name := range slices.Sorted(maps.Keys(in.GetXattrs())) {
		value := in.GetXattrs()[name]
		b := r.s.Room(len(name) + len(value) + 512)
		b.Call("set "+name+" of "+path, unix.SYS_FSETXATTR, fd, b.String(name), b.Data(value), len(value), 0)
	}
}

func checkXattrs(in *dump.Inode) error {
	for name, value := range in.GetXattrs() {
		if !keptXattr(name) || len(name) > 255 || strings.IndexByte(name, 0) >= 0 || len(value) > maxXattr {
			return fmt.Errorf("extended attribute %.100q of %d bytes is not possible", name, len(value))
		}
	}
	return nil
}
