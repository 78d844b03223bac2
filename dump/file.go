package dump

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// FileWriter is a Writer to a file that appears under its name only when it is whole.
type FileWriter struct {
	*Writer
	f    *os.File // nil: committed or abandoned
	path string
}

// Create begins a snapshot in a temporary file beside path. Either Commit or Abort ends it.
func Create(path string, h *Header, codec Codec) (*FileWriter, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("create snapshot %s: %w", path, err)
	}
	w, err := NewWriter(f, h, codec)
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &FileWriter{Writer: w, f: f, path: path}, nil
}

// Commit finishes the snapshot, syncs it to disk and gives it its name, in place of a file that has it.
// If it fails, the snapshot is abandoned.
func (w *FileWriter) Commit() error {
	if w.f == nil {
		return fmt.Errorf("commit snapshot %s: %w", w.path, ErrClosed)
	}
	if err := w.commit(); err != nil {
		w.Abort()
		return fmt.Errorf("commit snapshot %s: %w", w.path, err)
	}
	return nil
}

func (w *FileWriter) commit() error {
	if err := w.Close(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(w.f.Name(), w.path); err != nil {
		return err
	}
	// The name is there and the content is on disk; from here on nothing is taken back.
	f := w.f
	w.f = nil
	return errors.Join(f.Close(), syncDir(filepath.Dir(w.path)))
}

// Abort removes what was written, unless it was committed. It must not be called while Commit runs.
func (w *FileWriter) Abort() {
	w.Writer.Abort()
	if w.f == nil {
		return
	}
	// Nobody has seen the file, and there is nothing more to be done about one that cannot be removed.
	_ = os.Remove(w.f.Name())
	_ = w.f.Close()
	w.f = nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// SnapshotFile is a Snapshot with the file that it is in.
type SnapshotFile struct {
	*Snapshot
	f *os.File
}

// OpenFile opens the snapshot at path.
func OpenFile(path string) (*SnapshotFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	s, err := openFile(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, nil
}

func openFile(f *os.File) (*SnapshotFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	s, err := Open(f, info.Size())
	if err != nil {
		return nil, err
	}
	return &SnapshotFile{s, f}, nil
}

// Spool copies a snapshot from a pipe, which must end where it ends, to a file without a name in dir (empty: the
// system's), and opens that. A stream that is not a snapshot is refused as soon as it shows.
func Spool(r io.Reader, dir string) (*SnapshotFile, error) {
	f, err := os.CreateTemp(dir, "snapshot-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("spool snapshot: %w", err)
	}
	// Nothing is left of it, however we end.
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("spool snapshot: %w", err), f.Close())
	}
	s, err := spool(f, r)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func spool(f *os.File, r io.Reader) (*SnapshotFile, error) {
	// The pages are checked when they are read from the file.
	copied, err := NewReader(io.TeeReader(r, f))
	if err != nil {
		return nil, err
	}
	copied.light = true
	if err := copied.drain(func(Unit) error { return nil }); err != nil {
		return nil, err
	}
	if _, err := copied.s.r.ReadByte(); err == nil {
		return nil, corrupt(copied.s.off, "more bytes follow the end of the snapshot")
	} else if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read snapshot at offset %d: %w", copied.s.off, err)
	}
	return openFile(f)
}

// File returns the open file, for reads at a [Snapshot.Position]. It stays the snapshot's.
func (s *SnapshotFile) File() *os.File { return s.f }

// Close closes the file; the snapshot is no longer of use.
func (s *SnapshotFile) Close() error { return s.f.Close() }
