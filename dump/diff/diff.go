// Package diff compares two snapshots: records field by field, memory page by page.
package diff

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"vps/dump"
)

// Report is what is different in a second snapshot, b, from a first one, a. How pages are stored makes no difference.
type Report struct {
	Header  []Field  `json:"header"`
	Removed []Record `json:"removed"` // only in a
	Added   []Record `json:"added"`   // only in b
	Changed []Change `json:"changed"`
	Pages   []Pages  `json:"pages"`
}

// Record names a record.
type Record struct {
	Key   dump.Key `json:"-"`
	Type  string   `json:"type"`
	ID    uint64   `json:"id,string"`
	About string   `json:"about,omitempty"` // what it describes, for people
}

// Change is a record that is in both, with what is different.
type Change struct {
	Record
	Fields []Field `json:"fields"`
}

// Same tells whether there is no difference.
func (r *Report) Same() bool {
	return len(r.Header)+len(r.Removed)+len(r.Added)+len(r.Changed)+len(r.Pages) == 0
}

// Snapshots checks every byte of two snapshots and compares them.
func Snapshots(ctx context.Context, a, b *dump.Snapshot) (*Report, error) {
	if was, is := a.Header().GetPageSize(), b.Header().GetPageSize(); was != is {
		return nil, fmt.Errorf("pages of %d bytes cannot be compared with those of %d: %w", was, is, dump.ErrArch)
	}
	for _, s := range []*dump.Snapshot{a, b} {
		if err := s.Verify(ctx); err != nil {
			return nil, err
		}
	}
	r := &Report{
		Header: compare(a.Header(), b.Header()), Removed: []Record{}, Added: []Record{}, Changed: []Change{}, Pages: []Pages{},
	}
	pages := newPageComparer(a, b)
	aboutA, err := newIndex(a)
	if err != nil {
		return nil, err
	}
	aboutB, err := newIndex(b)
	if err != nil {
		return nil, err
	}
	for k, in := range merge(a.Keys(), b.Keys()) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch in {
		case onlyA:
			r.Removed = append(r.Removed, aboutA.record(k))
		case onlyB:
			r.Added = append(r.Added, aboutB.record(k))
		default:
			fields, err := compareRecords(a, b, k)
			if err != nil {
				return nil, err
			}
			if len(fields) > 0 {
				r.Changed = append(r.Changed, Change{aboutB.record(k), fields})
			}
		}
		p, err := pages.compare(ctx, k)
		if err != nil {
			return nil, err
		}
		if p.Changed+p.Added+p.Removed > 0 {
			p.Record = aboutB.record(k)
			if in == onlyA {
				p.Record = aboutA.record(k)
			}
			r.Pages = append(r.Pages, p)
		}
	}
	return r, nil
}

// Where a key is.
type where int

const (
	inBoth where = iota
	onlyA
	onlyB
)

// merge yields the keys of both lists, which ascend, by type and id.
func merge(a, b []dump.Key) func(yield func(dump.Key, where) bool) {
	return func(yield func(dump.Key, where) bool) {
		for len(a) > 0 || len(b) > 0 {
			var k dump.Key
			in := inBoth
			switch {
			case len(b) == 0 || len(a) > 0 && a[0].Compare(b[0]) < 0:
				k, a, in = a[0], a[1:], onlyA
			case len(a) == 0 || b[0].Compare(a[0]) < 0:
				k, b, in = b[0], b[1:], onlyB
			default:
				k, a, b = a[0], a[1:], b[1:]
			}
			if !yield(k, in) {
				return
			}
		}
	}
}

// compareRecords compares a record that is in both. What is not understood here is compared as it is stored.
func compareRecords(a, b *dump.Snapshot, k dump.Key) ([]Field, error) {
	was, err := a.Record(k)
	if err != nil {
		return nil, err
	}
	is, err := b.Record(k)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(was.Payload(), is.Payload()) {
		return nil, nil
	}
	old, oldErr := understood(was)
	now, nowErr := understood(is)
	for _, err := range []error{oldErr, nowErr} {
		if err != nil {
			return nil, err
		}
	}
	if old == nil || now == nil {
		return []Field{{Old: describeBytes(was.Payload(), is.Payload()), New: describeBytes(is.Payload(), was.Payload())}}, nil
	}
	return compare(old, now), nil
}

// understood decodes a record; nil if a newer minor version has put something into it.
func understood(rec *dump.Record) (proto.Message, error) {
	if err := rec.Unsupported(); errors.Is(err, dump.ErrUnsupported) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return rec.Message()
}
