package convert_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"vps/dump"
	"vps/dump/convert"
)

// A snapshot of two rounds becomes one of one round, of an instance with another name.
func ExampleSnapshot() {
	var file bytes.Buffer
	w, err := dump.NewWriter(&file, &dump.Header{PageSize: 4096, Instance: "web"}, dump.Plain)
	if err != nil {
		fmt.Println(err)
		return
	}
	key := dump.Key{Type: dump.Type_TYPE_MM, ID: 12}
	fill := func(buf []byte, _ []dump.Range) error {
		copy(buf, bytes.Repeat([]byte{7}, len(buf)))
		return nil
	}
	err = errors.Join(
		w.Put(12, &dump.Mm{Id: 12}),
		w.WritePages(key, []dump.Range{{Start: 0x1000, End: 0x3000}}, fill),
		w.WritePages(key, []dump.Range{{Start: 0x2000, End: 0x4000}}, fill),
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

	var out bytes.Buffer
	err = convert.Snapshot(context.Background(), &out, s, convert.Options{
		Codec: dump.Zstd,
		Edit: func(m proto.Message) error {
			if h, ok := m.(*dump.Header); ok {
				h.Instance = "copy"
			}
			return nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	copied, err := dump.Open(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(copied.Header().Instance, copied.Extents(key), len(s.Frames()), "frames became", len(copied.Frames()))
	// Output:
	// copy [0x1000-0x4000] 2 frames became 1
}
