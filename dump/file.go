package dump

import (
	"errors"
	"fmt"
	"io"
	"os"

	"vps/dump/atomicfile"
)

// FileWriter is a Writer to a file that appears under its name only when it is whole.
type FileWriter struct {
	*Writer
	f    *atomicfile.File // nil: committed or abandoned
	path string
}

// Create begins a snapshot in a file that is to be at path. Either Commit or Abort ends it.
func Create(path string, h *Header, codec Codec) (*FileWriter, error) {
	f, err := atomicfile.Create(path)
	if err != nil {
		return nil, err
	}
	w, err := NewWriter(f, h, codec)
	if err != nil {
		return nil, errors.Join(err, f.Discard())
	}
	return &FileWriter{Writer: w, f: f, path: path}, nil
}

// Commit finishes the snapshot, syncs it to disk and gives it its name, in place of a file that has it.
// If it fails, the snapshot is abandoned.
func (w *FileWriter) Commit() error {
	if w.f == nil {
		return fmt.Errorf("commit snapshot %s: %w", w.path, ErrClosed)
	}
	err := w.Close()
	if err == nil {
		err = w.f.Commit()
	}
	w.Abort()
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", w.path, err)
	}
	return nil
}

// Abort removes what was written, unless it was committed. It must not be called while Commit runs.
func (w *FileWriter) Abort() {
	w.Writer.Abort()
	if w.f != nil {
		// A file that was committed is synced; of another one there is nothing more to be done.
		_ = w.f.Discard()
		w.f = nil
	}
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
	s, err := OpenFrom(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, nil
}

// OpenFrom opens the snapshot in an open file, which becomes the snapshot's if there is no error.
func OpenFrom(f *os.File) (*SnapshotFile, error) {
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
	return OpenFrom(f)
}

// File returns the open file, for reads at a [Snapshot.Position]. It stays the snapshot's.
func (s *SnapshotFile) File() *os.File { return s.f }

// Close closes the file; the snapshot is no longer of use.
func (s *SnapshotFile) Close() error { return s.f.Close() }
