package dump

import (
	"fmt"
	"slices"

	"vps/dump/page"
)

// ledger is what a snapshot holds, as its units tell one after the other. Writer and readers keep the
// same one, and the trailer is its copy in the file.
type ledger struct {
	pageSize uint64
	records  map[Key]span // those that were neither replaced nor withdrawn
	frames   []*Frame
	pages    map[Key]*page.Log
}

// span is where a unit is.
type span struct {
	off  int64
	size int
}

func newLedger(h *Header) *ledger {
	return &ledger{
		pageSize: uint64(h.PageSize),
		records:  make(map[Key]span),
		pages:    make(map[Key]*page.Log),
	}
}

func (l *ledger) record(k Key, at span) { l.records[k] = at }

// tombstone withdraws a record and its pages. It may be one that never came.
func (l *ledger) tombstone(k Key) {
	delete(l.records, k)
	delete(l.pages, k)
}

// frame enters the next frame.
func (l *ledger) frame(f *Frame, extents []Extent) error {
	if _, ok := l.records[f.Key]; !ok {
		return fmt.Errorf("%s: %w", f, ErrOrder)
	}
	if f.Kind == Shared {
		if err := l.checkSources(f, extents); err != nil {
			return err
		}
	}
	log := l.pages[f.Key]
	if log == nil {
		log = new(page.Log)
		l.pages[f.Key] = log
	}
	for _, e := range extents {
		log.Add(e)
	}
	l.frames = append(l.frames, f)
	return nil
}

// checkSources tells whether a frame refers to pages that are stored before it.
func (l *ledger) checkSources(f *Frame, extents []Extent) error {
	for _, e := range extents {
		if e.Frame >= len(l.frames) {
			return fmt.Errorf("%s: range %v refers to frame %d, which does not come before", f, e.Range, e.Frame)
		}
		source := l.frames[e.Frame]
		if uint64(e.Index)+e.Len()/l.pageSize > uint64(source.Count) {
			return fmt.Errorf("%s: range %v refers to page %d of frame %d, which has %d", f, e.Range, e.Index, e.Frame, source.Count)
		}
	}
	return nil
}

// extents returns the pages of an object, ascending.
func (l *ledger) extents(k Key) []Extent {
	if log := l.pages[k]; log != nil {
		return log.Extents(l.pageSize)
	}
	return nil
}

// keys returns those of the records, by type and id.
func (l *ledger) keys() []Key {
	keys := make([]Key, 0, len(l.records))
	for k := range l.records {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, Key.Compare)
	return keys
}
