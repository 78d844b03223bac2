package idrange

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestTakeAndRelease(t *testing.T) {
	dir := t.TempDir()
	f := File(filepath.Join(dir, "ids", "ranges.json"))
	take := func(name string) int {
		t.Helper()
		path, got := filepath.Join(dir, name), 0
		err := f.Take(path, func(first int) error {
			got = first
			return os.WriteFile(path, nil, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	a, b := take("a"), take("b")
	if a == b || a%Size != 0 || b%Size != 0 {
		t.Fatalf("ranges %#x and %#x", a, b)
	}
	if err := f.Release(a, filepath.Join(dir, "b")); err != nil || take("c") == a {
		t.Errorf("a range was released by who does not have it: %v", err)
	}
	if err := f.Release(a, filepath.Join(dir, "a")); err != nil || take("d") != a {
		t.Errorf("a range that was released is not given again: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if take("e") != b {
		t.Error("the range of an owner that is gone is not given again")
	}
}

func TestFailedSave(t *testing.T) {
	f := File(filepath.Join(t.TempDir(), "ranges.json"))
	failure := errors.New("no room")
	var first, second int
	if err := f.Take("x", func(n int) error { first = n; return failure }); !errors.Is(err, failure) {
		t.Fatal(err)
	}
	if err := f.Take("y", func(n int) error { second = n; return nil }); err != nil || first != second {
		t.Errorf("%#x, then %#x, %v", first, second, err)
	}
}
