package tcp

import (
	"errors"
	"fmt"
	"slices"

	"vps/dump"
)

// maxQueues is how many bytes may be in the queues of a socket, pieceSize how many of them are in one record.
const (
	maxQueues = 128 << 20
	pieceSize = 4 << 20
)

// size is how many bytes there are in the queues.
func size(t *dump.Tcp) int { return len(t.GetSent()) + len(t.GetUnsent()) + len(t.GetReceived()) }

// split moves queues that are too long for the record of their socket to records of their own.
func (d *dumper) split(t *dump.Tcp) error {
	if size(t) <= pieceSize {
		return nil
	}
	t.Pieces = &dump.TcpPieces{
		Sent: uint32(len(t.GetSent())), Unsent: uint32(len(t.GetUnsent())), Received: uint32(len(t.GetReceived())),
	}
	for piece := range slices.Chunk(slices.Concat(t.GetSent(), t.GetUnsent(), t.GetReceived()), pieceSize) {
		d.pieces++
		if err := d.Sink().Put(d.pieces, &dump.TcpQueue{Id: d.pieces, Data: piece}); err != nil {
			return err
		}
		t.Pieces.Queues = append(t.Pieces.Queues, d.pieces)
	}
	t.Sent, t.Unsent, t.Received = nil, nil, nil
	return nil
}

// join puts the queues of a socket together.
func join(t *dump.Tcp, queues map[uint64]*dump.TcpQueue) error {
	p := t.GetPieces()
	if p == nil {
		return nil
	}
	if size(t) > 0 {
		return errors.New("queues both in its own record and in others")
	}
	var all []byte
	for _, id := range p.GetQueues() {
		piece := queues[id]
		if piece == nil {
			return fmt.Errorf("there is no TCP queue %d", id)
		}
		if len(all)+len(piece.GetData()) > maxQueues {
			return fmt.Errorf("more than %d MiB in its queues", maxQueues>>20)
		}
		all = append(all, piece.GetData()...)
	}
	sent, unsent := uint64(p.GetSent()), uint64(p.GetSent())+uint64(p.GetUnsent())
	if unsent+uint64(p.GetReceived()) != uint64(len(all)) {
		return fmt.Errorf("queues of %d bytes in %d", unsent+uint64(p.GetReceived()), len(all))
	}
	t.Sent, t.Unsent, t.Received, t.Pieces = all[:sent:sent], all[sent:unsent:unsent], all[unsent:], nil
	return nil
}
