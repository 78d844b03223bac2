package restore_test

import (
	"maps"
	"testing"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object"
	"vps/object/recordset"
)

// TestFacts takes snapshots of programs that do not run: what the kernel's memory tells of them is what they say themselves.
func TestFacts(t *testing.T) {
	s := kindSite(t)
	for _, name := range []string{"altstack", "attributes", "creds", "signals", "threads", "clones"} {
		t.Run(name, func(t *testing.T) {
			s.begin(t, name, "")
			s.records() // it learns from the first ones
			found := s.records()
			facts := s.facts
			s.facts = nil
			defer func() { s.facts = facts }()
			asked := s.records()
			equal(t, "process", found.Processes, asked.Processes)
			equal(t, "thread", found.Threads, asked.Threads)
			equal(t, "signal actions", found.SigHands, asked.SigHands)
			equal(t, "memory", found.Mms, asked.Mms)
			if err := s.group.Thaw(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.verdict()
		})
	}
}

// records takes a snapshot, which leaves the instance suspended.
func (s *site) records() *object.Set {
	s.t.Helper()
	file, err := dump.OpenFile(s.snapshot())
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	set, err := recordset.Load(file.Snapshot)
	if err != nil {
		s.t.Fatal(err)
	}
	return set
}

func equal[M proto.Message](t *testing.T, what string, got, want map[uint64]M) {
	t.Helper()
	if !maps.EqualFunc(got, want, func(a, b M) bool { return proto.Equal(a, b) }) {
		t.Errorf("%s:\n%v\nnot\n%v", what, got, want)
	}
}
