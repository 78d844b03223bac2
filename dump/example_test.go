package dump_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"vps/dump"
)

// Writing an address space with three pages, and reading it back.
func Example() {
	var file bytes.Buffer
	w, err := dump.NewWriter(&file, &dump.Header{Arch: "x86_64", PageSize: 4096, Instance: "web"}, dump.Plain)
	if err != nil {
		fmt.Println(err)
		return
	}
	key := dump.Key{Type: dump.Type_TYPE_MM, ID: 12}
	ranges := []dump.Range{{Start: 0x1000, End: 0x3000}, {Start: 0x8000, End: 0x9000}}
	err = errors.Join(
		w.Put(12, &dump.Mm{Id: 12}),
		w.WritePages(key, ranges, func(buf []byte, ranges []dump.Range) error {
			for i := range buf { // a process would be read here
				buf[i] = 7
			}
			return nil
		}),
		w.Close(),
	)
	if err != nil {
		fmt.Println(err)
		return
	}

	s, err := dump.Open(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Header().Instance, s.Keys())
	for run, err := range s.Pages(key) {
		fmt.Println(run.Range, len(run.Data), err)
	}
	// Output:
	// web [MM 12]
	// 0x1000-0x3000 8192 <nil>
	// 0x8000-0x9000 4096 <nil>
}

// Reading a snapshot as it arrives.
func ExampleReader() {
	var stream bytes.Buffer
	w, err := dump.NewWriter(&stream, &dump.Header{PageSize: 4096}, dump.Plain)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = errors.Join(
		w.Put(1, &dump.Process{Pid: 1}),
		w.Put(9, &dump.Process{Pid: 9, Ppid: 1}),
		w.Delete(dump.Key{Type: dump.Type_TYPE_PROCESS, ID: 9}),
		w.Close(),
	)
	if err != nil {
		fmt.Println(err)
		return
	}

	r, err := dump.NewReader(&stream)
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		unit, err := r.Next()
		if errors.Is(err, io.EOF) {
			fmt.Println("whole")
			return
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		if rec, ok := unit.(*dump.Record); ok {
			fmt.Println(rec.Key, "withdrawn:", rec.Deleted)
		}
	}
	// Output:
	// PROCESS 1 withdrawn: false
	// PROCESS 9 withdrawn: false
	// PROCESS 9 withdrawn: true
	// whole
}

func ExampleOpen() {
	file := []byte("not one of ours, though long enough to have a header")
	_, err := dump.Open(bytes.NewReader(file), int64(len(file)))
	fmt.Println(err)
	fmt.Println(errors.Is(err, dump.ErrNotSnapshot))
	// Output:
	// snapshot: offset 0: not a snapshot file
	// true
}
