// Package recordset reads the records of a snapshot, which is hostile input, and checks those of every kind against
// each other.
package recordset

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
	"vps/pager"
)

// Load reads all records of a snapshot and checks what every part of a restore relies on: that what a record refers to
// is there, and that no number is impossible. A snapshot is hostile input.
func Load(s *dump.Snapshot) (*object.Set, error) {
	if bad, err := s.Unsupported(); err != nil {
		return nil, err
	} else if len(bad) > 0 {
		return nil, bad[0]
	}
	set := &object.Set{}
	var err error
	if set.Instance, err = dump.Get[*dump.Instance](s, 1); err != nil {
		return nil, fmt.Errorf("general information: %w", err)
	}
	for _, load := range []func() error{
		into(s, &set.Mounts), into(s, &set.Inodes), into(s, &set.Processes), into(s, &set.Threads), into(s, &set.Mms),
		into(s, &set.FdTables), into(s, &set.SigHands), into(s, &set.Seccomps), into(s, &set.Files), into(s, &set.Pipes),
		into(s, &set.UnixSockets), into(s, &set.Ttys), into(s, &set.Memories),
		into(s, &set.ShmSegments), into(s, &set.SemSets), into(s, &set.MsgQueues), into(s, &set.Mqueues),
		into(s, &set.Sockets), into(s, &set.Networks), into(s, &set.Firewalls),
	} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	return set, checker{set}.check(s)
}

// into loads all records of a type.
func into[M proto.Message](s *dump.Snapshot, to *map[uint64]M) func() error {
	return func() error {
		*to = make(map[uint64]M)
		var zero M
		for _, id := range s.IDs(dump.TypeOf(zero)) {
			m, err := dump.Get[M](s, id)
			if err != nil {
				return err
			}
			(*to)[id] = m
		}
		return nil
	}
}

// Content gives the content of the Memory records of a snapshot.
type Content struct {
	Snapshot *dump.Snapshot
	Set      *object.Set
}

// Fill writes the pages of a Memory record to w.
func (c Content) Fill(id uint64, w io.WriterAt) error {
	m, ok := c.Set.Memories[id]
	if !ok {
		return fmt.Errorf("there is no memory %d", id)
	}
	return pager.FillFile(c.Snapshot, id, w, int64(m.GetSize()))
}
