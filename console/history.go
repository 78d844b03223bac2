// Package console reads what an instance's console has printed, and goes on reading while more comes. The keeper writes
// it to a file that grows for ever, and whose beginning is given back now and then: see [Trim].
package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what is read of a history.
type Options struct {
	Tail int64 // bytes from the end; 0 for all that is kept

	// Until ends a reader that has come to the end of the history. nil ends it at the first end.
	Until <-chan struct{}
}

// Reader reads a history. Several readers do not disturb each other.
type Reader struct {
	file   *os.File
	offset int64
	notify *os.File // inotify(7); nil if the reader does not wait
	until  <-chan struct{}
	closed chan struct{}
}

// Open begins to read the history at path. The caller closes the reader, which ends a Read that waits.
func Open(path string, opt Options) (*Reader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Reader{file: file, until: opt.Until, closed: make(chan struct{})}
	if err := r.start(opt); err != nil {
		file.Close()
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if r.notify != nil {
		go r.interrupt()
	}
	return r, nil
}

func (r *Reader) start(opt Options) error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	first, err := firstData(r.file)
	if err != nil {
		return err
	}
	r.offset = first
	if opt.Tail > 0 {
		r.offset = max(first, info.Size()-opt.Tail)
	}
	if opt.Until == nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify_init: %w", err)
	}
	r.notify = os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, r.file.Name(), unix.IN_MODIFY); err != nil {
		r.notify.Close()
		return fmt.Errorf("inotify_add_watch: %w", err)
	}
	return nil
}

// interrupt wakes a Read that waits when nothing more will come.
func (r *Reader) interrupt() {
	select {
	case <-r.until:
	case <-r.closed:
	}
	r.notify.SetReadDeadline(time.Unix(1, 0))
}

// Read returns io.EOF at the end, or, while it is not known to be the end, waits there.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		n, err := r.file.ReadAt(p, r.offset)
		r.offset += int64(n)
		if n > 0 {
			return n, nil
		}
		if !errors.Is(err, io.EOF) || r.notify == nil {
			return 0, err
		}
		var events [4096]byte
		if _, err := r.notify.Read(events[:]); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, err
			}
			// What came at last.
			n, err := r.file.ReadAt(p, r.offset)
			r.offset += int64(n)
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
	}
}

// Close ends the reading.
func (r *Reader) Close() error {
	select {
	case <-r.closed:
		return nil
	default:
	}
	close(r.closed)
	err := r.file.Close()
	if r.notify != nil {
		err = errors.Join(err, r.notify.Close())
	}
	return err
}

// firstData is where a file's content begins: after what was given back.
func firstData(f *os.File) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return 0, nil // empty
	}
	return at, err
}

// Trim gives back all of the history at path but about the last keep bytes, and returns its length, which only grows.
func Trim(path string, keep int64) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	first, err := firstData(f)
	if err != nil {
		return 0, fmt.Errorf("trim %s: %w", path, err)
	}
	const page = 4096
	end := (info.Size() - keep) &^ (page - 1)
	if end-first < keep {
		return info.Size(), nil
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, end); err != nil {
		return 0, fmt.Errorf("trim %s: %w", path, err)
	}
	return info.Size(), nil
}
