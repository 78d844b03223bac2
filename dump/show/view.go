// Package show presents snapshots to people and to programs: as text, as JSON.
package show

import "vps/dump"

// view is a snapshot with what is asked of it again and again.
type view struct {
	s        *dump.Snapshot
	frames   []*dump.Frame
	pageSize uint64
}

func newView(s *dump.Snapshot) *view {
	return &view{s: s, frames: s.Frames(), pageSize: uint64(s.Header().GetPageSize())}
}

// usage counts pages.
type usage struct{ stored, shared, zero uint64 }

// usage returns the pages of an object; shared are those that were stored for another one.
func (v *view) usage(k dump.Key) (u usage, extents []dump.Extent) {
	extents = v.s.Extents(k)
	for _, e := range extents {
		n := e.Len() / v.pageSize
		switch {
		case e.Frame == dump.Zero:
			u.zero += n
		case v.frames[e.Frame].Key != k:
			u.shared += n
		default:
			u.stored += n
		}
	}
	return u, extents
}
