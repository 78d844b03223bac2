package restore_test

import (
	"encoding/binary"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/object/birth"
	"vps/object/recordset"
	"vps/restore"
)

// prepare thinks the restore of a snapshot through, up to where something would be made.
func prepare(s *dump.Snapshot) error {
	set, err := recordset.Load(s)
	if err != nil {
		return err
	}
	plan, err := restore.Prepare(s, set)
	if err != nil {
		return err
	}
	_, err = plan.ArenaBase(uint64(plan.Slots) << 18)
	return err
}

// TestEveryField prepares a restore for each change to a field: none panics or hangs, and every error says what it is of.
func TestEveryField(t *testing.T) {
	recs := readRecords(t, open(t, readFile(t, recordsFile)))
	if err := prepare(recs.write(t, nil, nil)); err != nil {
		t.Fatal(err)
	}
	refused := 0
	list := recs.all(1)
	for _, m := range list {
		begin := time.Now()
		err := prepare(recs.mutated(t, m, nil))
		if err != nil {
			refused++
			if !wellNamed(err) {
				t.Errorf("%s: the error does not name it: %v", m, err)
			}
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: took %v", m, took)
		}
	}
	t.Logf("%d of %d refused", refused, len(list))
}

// FuzzRecords changes several fields of real records at once, also those that [mutations] would not: each six bytes of the
// input choose a record, a change, and another record of the same type whose field values then count.
func FuzzRecords(f *testing.F) {
	recs := readRecords(f, open(f, readFile(f, recordsFile)))
	changes := make([][]mutation, len(recs.keys))
	for i, k := range recs.keys {
		changes[i] = mutations(k, recs.messages[k])
	}
	for i := range recs.keys {
		seed := binary.LittleEndian.AppendUint16(nil, uint16(i))
		seed = binary.LittleEndian.AppendUint16(seed, uint16(7*i))
		seed = binary.LittleEndian.AppendUint16(seed, uint16(3*i))
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		place := make(map[dump.Key]proto.Message)
		for ; len(input) >= 6 && len(place) < 8; input = input[6:] {
			at := int(binary.LittleEndian.Uint16(input)) % len(recs.keys)
			key := recs.keys[at]
			message := proto.Clone(recs.messages[key])
			if other := recs.keys[int(binary.LittleEndian.Uint16(input[4:]))%len(recs.keys)]; other.Type == key.Type {
				message = proto.Clone(recs.messages[other])
			} else {
				changes[at][int(binary.LittleEndian.Uint16(input[2:]))%len(changes[at])].apply(message)
			}
			place[key] = message
		}
		if err := prepare(recs.write(t, place, nil)); err != nil && !wellNamed(err) {
			t.Errorf("the error does not name it: %v", err)
		}
	})
}

// FuzzProcesses plans births from process records with any numbers.
func FuzzProcesses(f *testing.F) {
	f.Add([]byte{0, 1, 1, 0, 1, 2, 2, 0, 2, 1, 1, 0, 3, 4, 4, 1})
	f.Fuzz(func(t *testing.T, input []byte) {
		records := make(map[uint64]*dump.Process)
		for pid := uint64(1); len(input) >= 4 && pid < 64; pid++ {
			records[pid] = &dump.Process{
				Pid: uint32(pid), Ppid: uint32(input[0] % 64), Pgid: uint32(input[1] % 80), Sid: uint32(input[2] % 80),
				Threads: []uint32{uint32(pid), 100 + uint32(input[3])},
			}
			if input[3]&1 != 0 {
				records[pid].State = dump.Process_ZOMBIE
			}
			input = input[4:]
		}
		if _, err := birth.NewPlan(records); err != nil && !wellNamed(err) {
			t.Errorf("the error does not name it: %v", err)
		}
	})
}
