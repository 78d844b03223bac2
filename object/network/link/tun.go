package link

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object"
	"vps/object/network/netlink"
)

// makeTun makes a persistent interface in the namespace of the calling thread (Documentation/networking/tuntap.rst).
func makeTun(i *dump.Interface, ids object.IDMaps) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, int(i.Index)); err != nil {
		return fmt.Errorf("TUNSETIFINDEX: %w", err)
	}
	request, err := unix.NewIfreq(i.Name)
	if err != nil {
		return err
	}
	request.SetUint16(uint16(i.Tun.GetFlags()&tunFlags) | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	for _, set := range []struct {
		what   string
		ioctl  uint
		id     *uint32
		lookup func(uint32) (uint32, error)
	}{{"owner", unix.TUNSETOWNER, i.Tun.Owner, ids.HostUID}, {"group", unix.TUNSETGROUP, i.Tun.Group, ids.HostGID}} {
		if set.id == nil {
			continue
		}
		id, err := set.lookup(*set.id)
		if err != nil {
			return err
		}
		if err := unix.IoctlSetInt(fd, set.ioctl, int(id)); err != nil {
			return fmt.Errorf("set its %s: %w", set.what, err)
		}
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("TUNSETPERSIST: %w", err)
	}
	return nil
}

// tunFlags are the flags that make a difference to a persistent interface.
const tunFlags = unix.IFF_TUN | unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE

// decodeTun makes a record of IFLA_INFO_DATA.
func decodeTun(data []byte, ids object.IDMaps) (*dump.Tun, error) {
	t := &dump.Tun{}
	persistent, noInfo := false, true
	for a := range netlink.Attributes(data) {
		v := a.Uint32()
		var err error
		switch a.Type {
		case unix.IFLA_TUN_OWNER:
			t.Owner = new(uint32)
			*t.Owner, err = ids.UID(v)
		case unix.IFLA_TUN_GROUP:
			t.Group = new(uint32)
			*t.Group, err = ids.GID(v)
		case unix.IFLA_TUN_TYPE:
			t.Flags |= v & (unix.IFF_TUN | unix.IFF_TAP)
		case unix.IFLA_TUN_PI:
			noInfo = v == 0
		case unix.IFLA_TUN_VNET_HDR:
			t.Flags |= unix.IFF_VNET_HDR * min(v, 1)
		case unix.IFLA_TUN_MULTI_QUEUE:
			t.Flags |= unix.IFF_MULTI_QUEUE * min(v, 1)
		case unix.IFLA_TUN_PERSIST:
			persistent = v != 0
		}
		if err != nil {
			return nil, err
		}
	}
	if noInfo {
		t.Flags |= unix.IFF_NO_PI
	}
	if !persistent {
		return nil, fmt.Errorf("a process has it open")
	}
	return t, nil
}
