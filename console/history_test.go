package console

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Error(err)
	}
}

func TestReadAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	write(t, path, []byte("one\ntwo\n"))
	for _, test := range []struct {
		tail int64
		want string
	}{{0, "one\ntwo\n"}, {4, "two\n"}, {100, "one\ntwo\n"}} {
		r, err := Open(path, Options{Tail: test.tail})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != test.want {
			t.Errorf("tail %d: %q, %v; want %q", test.tail, got, err, test.want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	write(t, path, []byte("old "))
	until := make(chan struct{})
	r, err := Open(path, Options{Until: until})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, 100)
	for _, text := range []string{"old ", "new "} {
		if text == "new " {
			go write(t, path, []byte(text))
		}
		n, err := r.Read(buf)
		if err != nil || string(buf[:n]) != text {
			t.Fatalf("%q, %v; want %q", buf[:n], err, text)
		}
	}
	write(t, path, []byte("last"))
	close(until)
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "last" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestCloseEndsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	write(t, path, nil)
	r, err := Open(path, Options{Until: make(chan struct{})})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := r.Read(make([]byte, 1))
		ended <- err
	}()
	r.Close()
	if err := <-ended; err == nil {
		t.Fatal("a read of a closed reader succeeded")
	}
}

func TestTrim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	write(t, path, bytes.Repeat([]byte("a"), 100<<10))
	write(t, path, []byte("end"))
	size, err := Trim(path, 8<<10)
	if err != nil || size != 100<<10+3 {
		t.Fatalf("size %d, %v", size, err)
	}
	r, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < 8<<10 || len(got) > 16<<10 || !bytes.HasSuffix(got, []byte("aend")) || got[0] != 'a' {
		t.Fatalf("%d bytes are left, from %q", len(got), got[0])
	}
}
