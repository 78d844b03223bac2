package ipc

import (
	"strings"
	"testing"

	"vps/dump"
	"vps/object"
)

func TestCheck(t *testing.T) {
	content := map[uint64]*dump.Memory{9: {Id: 9, Kind: dump.Memory_SYSV, Size: 8192}, 10: {Id: 10, Kind: dump.Memory_MEMFD, Size: 8192}}
	segment := func(s *dump.ShmSegment) object.Set {
		return object.Set{ShmSegments: map[uint64]*dump.ShmSegment{s.GetId(): s}, Memories: content}
	}
	sems := func(undo *dump.SemUndo, list ...*dump.Semaphore) object.Set {
		return object.Set{
			SemSets:   map[uint64]*dump.SemSet{1: {Id: 1, Semaphores: list}},
			Processes: map[uint64]*dump.Process{1: {Pid: 1, SemUndos: []*dump.SemUndo{undo}}},
		}
	}
	mqueue := func(q *dump.Mqueue) object.Set { return object.Set{Mqueues: map[uint64]*dump.Mqueue{1: q}} }
	none := &dump.SemUndo{Set: 1, Adjust: []int32{0}}
	for what, c := range map[string]struct {
		set object.Set
		bad string
	}{
		"segment":                 {segment(&dump.ShmSegment{Id: 1, Size: 5000, Memory: 9}), ""},
		"segment's id":            {segment(&dump.ShmSegment{Id: 1 << 32, Size: 5000, Memory: 9}), "id"},
		"segment without size":    {segment(&dump.ShmSegment{Id: 1, Memory: 9}), "size"},
		"segment's size":          {segment(&dump.ShmSegment{Id: 1, Size: 1 << 63, Memory: 9}), "size"},
		"segment's whole size":    {segment(&dump.ShmSegment{Id: 1, Size: 9000, Memory: 9}), "no memory"},
		"segment's memory":        {segment(&dump.ShmSegment{Id: 1, Size: 5000, Memory: 8}), "no memory"},
		"another's memory":        {segment(&dump.ShmSegment{Id: 1, Size: 5000, Memory: 10}), "no memory"},
		"segment's creator":       {segment(&dump.ShmSegment{Id: 1, Size: 5000, Memory: 9, Creator: 1 << 30}), "pids"},
		"queue's sender":          {object.Set{MsgQueues: map[uint64]*dump.MsgQueue{1: {Id: 1, Sender: 1 << 30}}}, "pids"},
		"semaphores":              {sems(&dump.SemUndo{Set: 1, Adjust: []int32{-3}}, &dump.Semaphore{Value: 7}), ""},
		"no semaphores":           {sems(none), "number"},
		"semaphore's value":       {sems(none, &dump.Semaphore{Value: 32768}), "value"},
		"semaphore's pid":         {sems(none, &dump.Semaphore{Pid: 1 << 30}), "pid"},
		"undo of another set":     {sems(&dump.SemUndo{Set: 2, Adjust: []int32{1}}, &dump.Semaphore{}), "not there"},
		"undo of more":            {sems(&dump.SemUndo{Set: 1, Adjust: []int32{1, 1}}, &dump.Semaphore{}), "not there"},
		"undo's size":             {sems(&dump.SemUndo{Set: 1, Adjust: []int32{1 << 20}}, &dump.Semaphore{}), "adjustment"},
		"mqueue":                  {mqueue(&dump.Mqueue{Id: 1, Name: "x"}), ""},
		"mqueue without a name":   {mqueue(&dump.Mqueue{Id: 1}), "name"},
		"mqueue above":            {mqueue(&dump.Mqueue{Id: 1, Name: ".."}), "name"},
		"mqueue elsewhere":        {mqueue(&dump.Mqueue{Id: 1, Name: "a/b"}), "name"},
		"mqueue that tells":       {mqueue(&dump.Mqueue{Id: 1, Name: "x", Notify: &dump.MqueueNotify{Notify: 2}}), "notification"},
		"mqueue that tells so":    {mqueue(&dump.Mqueue{Id: 1, Name: "x", Notify: &dump.MqueueNotify{Notify: 0}}), ""},
		"mqueue with a NUL":       {mqueue(&dump.Mqueue{Id: 1, Name: "x\x00y"}), "name"},
		"mqueue of a long name":   {mqueue(&dump.Mqueue{Id: 1, Name: strings.Repeat("x", 256)}), "name"},
		"nothing in particular":   {object.Set{}, ""},
		"segment of a whole page": {segment(&dump.ShmSegment{Id: 1, Size: 8192, Memory: 9}), ""},
	} {
		switch err := Check(&c.set); {
		case c.bad == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)):
			t.Errorf("%s: %v, want ...%s...", what, err, c.bad)
		}
	}
}

func TestCheckMapping(t *testing.T) {
	set := &object.Set{ShmSegments: map[uint64]*dump.ShmSegment{1: {Id: 1, Size: 8192}}}
	for what, c := range map[string]struct {
		m   *dump.Mapping
		bad bool
	}{
		"whole":             {&dump.Mapping{Start: 0x10000, End: 0x12000, Shared: true, Shm: 1}, false},
		"second page":       {&dump.Mapping{Start: 0x10000, End: 0x11000, Offset: 0x1000, Shared: true, Shm: 1}, false},
		"private":           {&dump.Mapping{Start: 0x10000, End: 0x12000, Shm: 1}, true},
		"of nothing":        {&dump.Mapping{Start: 0x10000, End: 0x12000, Shared: true, Shm: 2}, true},
		"too long":          {&dump.Mapping{Start: 0x10000, End: 0x13000, Shared: true, Shm: 1}, true},
		"beyond":            {&dump.Mapping{Start: 0x10000, End: 0x11000, Offset: 0x2000, Shared: true, Shm: 1}, true},
		"odd offset":        {&dump.Mapping{Start: 0x10000, End: 0x11000, Offset: 0x10, Shared: true, Shm: 1}, true},
		"begins below zero": {&dump.Mapping{Start: 0, End: 0x1000, Offset: 0x1000, Shared: true, Shm: 1}, true},
		"ends too high":     {&dump.Mapping{Start: 0x7fffffffe000, End: 0x7fffffffe000 + 0x1000, Shared: true, Shm: 1}, true},
	} {
		if err := CheckMapping(set, c.m); (err != nil) != c.bad {
			t.Errorf("%s: %v", what, err)
		}
	}
}
