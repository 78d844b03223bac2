package tcp

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object/file"
)

// bag is a sink that keeps pieces of queues.
type bag map[uint64]*dump.TcpQueue

func (b bag) Put(id uint64, m proto.Message) error {
	b[id] = proto.CloneOf(m.(*dump.TcpQueue))
	return nil
}

func (b bag) Memory(uint64, io.ReaderAt, int64) error { return errors.ErrUnsupported }

func TestPieces(t *testing.T) {
	pattern := func(size int, seed byte) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(i%251) + seed
		}
		return b
	}
	want := &dump.Tcp{Sent: pattern(5<<20, 1), Unsent: pattern(7<<20+3, 2), Received: pattern(33<<20+1, 3)}
	queues := make(bag)
	d := &dumper{Descriptors: file.NewDescriptors(nil, 0, file.Externals{}, queues)}
	got := proto.CloneOf(want)
	if err := d.split(got); err != nil {
		t.Fatal(err)
	}
	if size(got) != 0 || len(queues) != 12 {
		t.Errorf("%d bytes in the record, %d pieces", size(got), len(queues))
	}
	again := &dump.Tcp{Sent: want.Sent[:1<<20]}
	if err := d.split(again); err != nil || again.Pieces != nil {
		t.Errorf("a short queue in pieces: %v", err)
	}
	pieces := proto.CloneOf(got)
	if err := join(got, queues); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Sent, want.Sent) || !bytes.Equal(got.Unsent, want.Unsent) || !bytes.Equal(got.Received, want.Received) {
		t.Error("another queue")
	}

	for name, spoil := range map[string]func(*dump.Tcp){
		"missing":  func(t *dump.Tcp) { t.Pieces.Queues[2] = 77 },
		"again":    func(t *dump.Tcp) { t.Pieces.Queues = append(t.Pieces.Queues, 1) },
		"too many": func(t *dump.Tcp) { t.Pieces.Queues = slices.Repeat([]uint64{1}, 80) },
		"sent":     func(t *dump.Tcp) { t.Pieces.Sent = 1<<32 - 1 },
		"wrap":     func(t *dump.Tcp) { t.Pieces.Sent, t.Pieces.Unsent = 1<<32-1, t.Pieces.Sent+t.Pieces.Unsent+1 },
		"both":     func(t *dump.Tcp) { t.Sent = []byte("x") },
	} {
		t.Run(name, func(t *testing.T) {
			bad := proto.CloneOf(pieces)
			spoil(bad)
			if err := join(bad, queues); err == nil {
				t.Error("no error")
			}
		})
	}
}
