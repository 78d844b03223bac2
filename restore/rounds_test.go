package restore_test

import (
	"testing"

	"vps/dump"
	"vps/snapshot"
)

// TestRounds takes snapshots of programs that change their memory all the time, copied in rounds while they run and all while they
// are frozen: each restores to what was there last.
func TestRounds(t *testing.T) {
	s := kindSite(t)
	for _, way := range []snapshot.Way{snapshot.Rounds, snapshot.Frozen} {
		t.Run(string(way), func(t *testing.T) {
			s.begin(t, "rounds", "")
			var rounds []snapshot.Round
			s.copy, s.progress = way, func(n int, r snapshot.Round) { rounds = append(rounds, r) }
			path := s.snapshot()
			s.end()
			if want := way == snapshot.Rounds; want != (len(rounds) >= 2) {
				t.Error("copied in rounds:", rounds)
			}
			twice, err := sentTwice(path)
			if err != nil || twice != (way == snapshot.Rounds) {
				t.Errorf("pages sent twice: %v, %v", twice, err)
			}
			s.restore(path)
			s.verdict()
		})
	}
}

// sentTwice tells whether a snapshot has frames for a page that an earlier frame was for.
func sentTwice(path string) (bool, error) {
	f, err := dump.OpenFile(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	frames := f.Frames()
	unused := 0
	for _, frame := range frames {
		unused += frame.Count
	}
	for _, k := range f.Keys() {
		for _, e := range f.Extents(k) {
			if e.Frame >= 0 && frames[e.Frame].Key == k {
				unused -= int(e.Len() / 4096)
			}
		}
	}
	return unused > 0, nil
}
