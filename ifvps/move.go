package ifvps

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Moved is an interface of the host's that an instance has for as long as it exists.
type Moved struct {
	Name  string `json:"name"`  // on the host
	Index int    `json:"index"` // inside
}

// Namespace is an instance's network namespace, which stays until it is closed: interfaces can be taken back when the
// instance has ended.
type Namespace struct{ file *os.File }

// OpenNamespace opens that of a process.
func OpenNamespace(pid int) (*Namespace, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	return &Namespace{f}, nil
}

// Close lets go of the namespace.
func (n *Namespace) Close() error { return n.file.Close() }

// MoveIn gives an instance an interface of the host's, under another name or, with an empty one, its own.
func (n *Namespace) MoveIn(name, inside string) (Moved, error) {
	fail := func(err error) (Moved, error) { return Moved{}, fmt.Errorf("move %s: %w", name, err) }
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fail(err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return fail(err)
	}
	if inside == "" {
		inside = name
	}
	err = setLink(link.Attrs().Index,
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(n.file.Fd()))), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(inside)))
	if err != nil {
		return fail(err)
	}
	there, err := netlink.NewHandleAt(netns.NsHandle(n.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fail(err)
	}
	defer there.Close()
	if link, err = there.LinkByName(inside); err != nil {
		return fail(err)
	}
	return Moved{Name: name, Index: link.Attrs().Index}, nil
}

// MoveOut takes an interface back. One that the instance has removed is gone.
func (n *Namespace) MoveOut(m Moved) error {
	there, err := netlink.NewHandleAt(netns.NsHandle(n.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer there.Close()
	link, err := there.LinkByIndex(m.Index)
	if err != nil {
		return ignoreGone(err)
	}
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ours.Close()
	return takeOut(there, link, m.Name, ours)
}

// takeOut moves a link out of a namespace.
func takeOut(there *netlink.Handle, link netlink.Link, name string, to *os.File) error {
	was := link.Attrs().Name
	if err := there.LinkSetDown(link); err != nil {
		return fmt.Errorf("link %s: %w", was, err)
	}
	if was != name {
		if err := there.LinkSetName(link, name); err != nil {
			return fmt.Errorf("rename link %s: %w", was, err)
		}
	}
	if err := there.LinkSetNsFd(link, int(to.Fd())); err != nil {
		return fmt.Errorf("move link %s out of the instance: %w", was, err)
	}
	return nil
}
