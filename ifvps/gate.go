package ifvps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"vps/ifvps/plane"
	"vps/linux"
)

// keepBytes is how much one port keeps, with the kernel's overhead, and keepPackets how many packets.
const (
	keepBytes   = 32 << 20
	keepPackets = 16384
)

// Hold has what arrives kept from now on.
func (m *Member) Hold() error { return m.shut(plane.GateIn) }

// Silence has what the instance sends kept too.
func (m *Member) Silence() error { return m.shut(plane.GateIn | plane.GateOut) }

func (m *Member) shut(directions uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.ports {
		if err := p.close(directions); err != nil {
			return err
		}
	}
	return nil
}

// Release puts what was kept where it was going, and opens the gates.
func (m *Member) Release() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.release()
}

func (m *Member) release() error {
	var errs []error
	for _, p := range m.ports {
		errs = append(errs, p.open())
	}
	return errors.Join(errs...)
}

// close closes the gate for some directions.
func (p *Port) close(directions uint32) error {
	e := p.entry()
	if p.tap == nil {
		var err error
		if p.tap, err = p.member.sw.newTap(p.tapName(), p.n); err != nil {
			return fmt.Errorf("what keeps packets of %s: %w", p.Name, err)
		}
		e.Keep(p.tap.index, keepBytes)
	}
	e.SetGate(directions)
	return nil
}

// open empties what was kept, and opens the gate. A packet that saw it closed may come to the tap after that: until all have gone through
// the programs, the tap is looked at again.
func (p *Port) open() error {
	e := p.entry()
	if p.tap == nil {
		e.SetGate(0)
		return nil
	}
	err := p.tap.drain(e)
	e.SetGate(0)
	err = errors.Join(err, p.tap.drain(e))
	err = errors.Join(err, linux.AwaitReaders())
	return errors.Join(err, p.tap.drain(e))
}

// tap is a TAP interface without anybody behind it: what is sent there waits in its queue, and what we write there comes back to
// the programs. Frames have a struct virtio_net_hdr before them, so that they may be larger than the link's MTU and without a
// checksum.
type tap struct {
	fd    int
	index int
}

// frameSize is more than any frame has: 64 KiB, headers, and struct virtio_net_hdr.
const frameSize = 80 << 10

// newTap makes a tap that goes when it is closed.
func (s *Switch) newTap(name string, n uint32) (t *tap, err error) {
	if old, err := s.net.LinkByName(name); err == nil {
		if err := ignoreGone(s.net.LinkDel(old)); err != nil { // cannot be but somebody else's
			return nil, fmt.Errorf("remove link %s: %w", name, err)
		}
	}
	t = &tap{}
	if t.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(t.fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("TUNSETIFF %s: %w", name, err)
	}
	const tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	err = unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, tso|unix.TUN_F_USO4|unix.TUN_F_USO6)
	if err == unix.EINVAL { // before Linux 6.2
		err = unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, tso)
	}
	if err != nil {
		return nil, fmt.Errorf("TUNSETOFFLOAD: %w", err)
	}
	link, err := s.net.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	t.index = link.Attrs().Index
	if err := s.net.LinkSetIP6AddrGenMode(link, genNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("link %s: no address: %w", name, err)
	}
	if err := s.net.LinkSetARPOff(link); err != nil {
		return nil, fmt.Errorf("link %s: no ARP: %w", name, err)
	}
	if err := s.net.LinkSetTxQLen(link, keepPackets); err != nil {
		return nil, fmt.Errorf("link %s: length of the queue: %w", name, err)
	}
	if err := s.tables.Link(t.index, n); err != nil {
		return nil, err
	}
	if err := attach(t.index, ebpf.AttachTCXIngress, s.programs.Back); err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	if err := s.net.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("link %s: up: %w", name, err)
	}
	return t, nil
}

func (t *tap) close() { unix.Close(t.fd) }

// drain puts back what the tap has. Frames that the programs did not send there are dropped.
func (t *tap) drain(e *plane.Port) error {
	frame := make([]byte, frameSize)
	const header = 10 // struct virtio_net_hdr
	for {
		n, err := unix.Read(t.fd, frame)
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read what was kept: %w", err)
		case n < header || !e.Kept(frame[header:n]):
			continue
		}
		if _, err := unix.Write(t.fd, frame[:n]); err != nil {
			e.Lose()
		}
	}
}
