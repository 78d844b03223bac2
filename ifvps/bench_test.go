package ifvps

import (
	"io"
	"net"
	"testing"
	"time"

	"vps/internal/nettest"
)

// BenchmarkStream and BenchmarkPingPong are between two instances, and between an instance and the host; through the switch,
// and through veth pairs and a Linux bridge.
func BenchmarkStream(b *testing.B) { each(b, stream) }

func BenchmarkPingPong(b *testing.B) { each(b, pingPong) }

func each(b *testing.B, bench func(*testing.B, net.Conn)) {
	w := newWorld(b)
	one := w.guest(b, spec("a", "192.0.2.10"))
	w.guest(b, spec("b", "192.0.2.11"))
	nettest.IP(b, "link add br0 type bridge")
	b.Cleanup(func() { nettest.IP(b, "link del br0") })
	nettest.IP(b, "addr add 203.0.113.1/24 dev br0")
	nettest.IP(b, "link set br0 up")
	var bridged []*nettest.Place
	for _, n := range []string{"2", "3"} {
		p := nettest.New(b)
		nettest.IP(b, "link add e"+n+" type veth peer name eth0 netns "+p.Process())
		nettest.IP(b, "link set e"+n+" master br0 up")
		p.IP("addr add 203.0.113." + n + "/24 dev eth0")
		p.IP("link set eth0 up")
		p.Echo()
		bridged = append(bridged, p)
	}
	for _, way := range []struct {
		name string
		from *nettest.Place
		to   string
	}{
		{"instance-instance/switch", one.Place, "192.0.2.11"}, {"instance-instance/bridge", bridged[0], "203.0.113.3"},
		{"host-instance/switch", w.self, "192.0.2.11"}, {"host-instance/bridge", w.self, "203.0.113.3"},
	} {
		b.Run(way.name, func(b *testing.B) {
			c, err := way.from.Dial(way.to, 5*time.Second)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			bench(b, c)
		})
	}
}

func stream(b *testing.B, c net.Conn) {
	const block = 256 << 10
	b.SetBytes(block)
	go func() {
		data := make([]byte, block)
		for range b.N {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, c, int64(b.N)*block); err != nil {
		b.Error(err)
	}
}

func pingPong(b *testing.B, c net.Conn) {
	var one [1]byte
	for range b.N {
		if _, err := c.Write(one[:]); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, one[:]); err != nil {
			b.Fatal(err)
		}
	}
}
