package dumptest

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"vps/dump"
)

// Script makes a snapshot of what a fuzzer gives: every byte is an operation or an argument. All checksums are right, and
// so the snapshot is whole; what it says need not make sense. Pages are in the first 256 of an object.
func Script(t testing.TB, script []byte) []byte {
	t.Helper()
	p := &player{script: script}
	codec := dump.Codec(p.next() % 2)
	var out bytes.Buffer
	w, err := dump.NewWriter(&out, Header(), codec)
	Must(t, err)
	layout := make(map[dump.Key]bool)
	for len(p.script) > 0 {
		op, key := p.next()%8, p.key()
		if !layout[key] && op != 7 {
			m := p.message(key)
			Must(t, w.Put(key.ID, m))
			layout[key] = true
		}
		switch op {
		case 0, 1:
			Must(t, w.WritePages(key, p.ranges(), Constant(p.next()%4)))
		case 2:
			Must(t, w.WriteZeros(key, p.ranges()))
		case 3:
			Must(t, w.WithdrawPages(key, p.ranges()))
		case 4:
			p.share(t, w, key, layout)
		case 5:
			Must(t, w.Delete(key))
			delete(layout, key)
		case 6:
			Must(t, w.Put(key.ID, p.message(key)))
		case 7:
			id := uint64(p.next()%4) + 1
			Must(t, w.Put(id, p.record(id)))
		}
	}
	Must(t, w.Close())
	return out.Bytes()
}

type player struct{ script []byte }

func (p *player) next() (c byte) {
	if len(p.script) > 0 {
		c, p.script = p.script[0], p.script[1:]
	}
	return c
}

func (p *player) key() dump.Key {
	c := p.next()
	if c&4 != 0 {
		return dump.Key{Type: dump.Type_TYPE_MEMORY, ID: uint64(c%4) + 1}
	}
	return MM(uint64(c%4) + 1)
}

// ranges returns ranges that ascend, at least one.
func (p *player) ranges() []dump.Range {
	var ranges []dump.Range
	at := uint64(p.next())
	for n := p.next()%3 + 1; n > 0; n-- {
		r := Pages(at, uint64(p.next()%16)+1)
		ranges = append(ranges, r)
		at = r.End/PageSize + uint64(p.next()%4)
	}
	return ranges
}

// share writes pages of key as those of another object, as far as that has the pages.
func (p *player) share(t testing.TB, w *dump.Writer, key dump.Key, layout map[dump.Key]bool) {
	from, to, n := p.key(), uint64(p.next()), uint64(p.next()%8)+1
	if !layout[from] {
		return
	}
	// What it has is known to the writer only: write it first.
	source := Pages(uint64(p.next()), n)
	Must(t, w.WritePages(from, []dump.Range{source}, Constant(p.next())))
	target := Pages(to, n)
	Must(t, w.WriteShared(key, []dump.Range{target}, from, int64(source.Start-target.Start)))
}

// message makes the record that pages belong to.
func (p *player) message(key dump.Key) proto.Message {
	if key.Type == dump.Type_TYPE_MEMORY {
		return &dump.Memory{Id: key.ID, Size: p.number()}
	}
	mm := &dump.Mm{Id: key.ID, ArgStart: p.number(), ArgEnd: p.number(), Auxv: p.bytes()}
	for n := p.next() % 4; n > 0; n-- {
		mm.Mappings = append(mm.Mappings, &dump.Mapping{
			Start: p.number(), End: p.number(), Prot: uint32(p.next()), Shared: p.next()%2 == 1,
			Kind: dump.Mapping_Kind(p.next() % 8), Memory: uint64(p.next() % 6), Offset: p.number(),
			File: &dump.FileRef{Path: string(p.bytes())},
		})
	}
	return mm
}

// record makes one of the other records.
func (p *player) record(id uint64) proto.Message {
	switch p.next() % 4 {
	case 0:
		process := &dump.Process{Pid: uint32(p.next() % 6), Ppid: uint32(p.next()), Mm: uint64(p.next() % 6), FdTable: 1, State: dump.Process_State(p.next() % 4)}
		for n := p.next() % 4; n > 0; n-- {
			process.Threads = append(process.Threads, uint32(p.next()%6))
		}
		return process
	case 1:
		thread := &dump.Thread{Tid: uint32(p.next() % 6), Pid: uint32(p.next() % 6), Comm: string(p.bytes()), Xstate: p.bytes()}
		if p.next()%2 == 1 {
			thread.Regs = &dump.Registers{Rip: p.number()}
		}
		for n := p.next() % 4; n > 0; n-- {
			thread.Pending = append(thread.Pending, p.bytes())
		}
		return thread
	case 2:
		return &dump.FdTable{Id: id, Fds: []*dump.Fd{{Fd: uint32(p.next()), File: uint64(p.next() % 4)}, {Fd: 1, File: 2}}}
	}
	return &dump.Instance{Name: string(p.bytes()), Config: string(p.bytes())}
}

// number is page-aligned more often than not.
func (p *player) number() uint64 {
	n := uint64(p.next())
	switch p.next() % 8 {
	case 0:
		return n
	case 1:
		return n << 56
	}
	return n * PageSize
}

func (p *player) bytes() []byte {
	n := min(int(p.next()), len(p.script))
	b := slices.Clone(p.script[:n])
	p.script = p.script[n:]
	return b
}
