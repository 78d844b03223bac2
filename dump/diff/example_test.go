package diff_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"vps/dump"
	"vps/dump/diff"
)

// A file was read on between two snapshots.
func ExampleSnapshots() {
	var s [2]*dump.Snapshot
	for i, pos := range []uint64{10, 20} {
		var file bytes.Buffer
		w, err := dump.NewWriter(&file, &dump.Header{PageSize: 4096}, dump.Plain)
		if err == nil {
			err = errors.Join(w.Put(3, &dump.File{Id: 3, Pos: pos}), w.Close())
		}
		if err == nil {
			s[i], err = dump.Open(bytes.NewReader(file.Bytes()), int64(file.Len()))
		}
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	report, err := diff.Snapshots(context.Background(), s[0], s[1])
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := report.Text(os.Stdout, false); err != nil {
		fmt.Println(err)
	}
	// Output:
	// ~ FILE 3
	//     - pos 10
	//     + pos 20
}
