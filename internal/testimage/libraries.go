package testimage

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// libraryDirs is where Debian's dynamic linker looks without a cache, ld.so(8).
var libraryDirs = [...]string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// addLibraries copies the shared libraries and the interpreter that an ELF file of the host names, and theirs.
// It reads the files only: ldd(1) would run them.
func (m *image) addLibraries(host string) error {
	interpreter, needed, err := dependencies(host)
	if err != nil {
		return err
	}
	if interpreter != "" {
		if err := m.addLibrary(interpreter); err != nil {
			return err
		}
	}
	for _, name := range needed {
		path, err := findLibrary(name)
		if err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		if err := m.addLibrary(path); err != nil {
			return err
		}
	}
	return nil
}

func (m *image) addLibrary(path string) error {
	if m.libraries[path] {
		return nil
	}
	m.libraries[path] = true
	return m.program(path, path)
}

// dependencies returns the interpreter (PT_INTERP) and the libraries (DT_NEEDED) of an ELF file.
func dependencies(path string) (interpreter string, needed []string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return "", nil, fmt.Errorf("%s: interpreter: %w", path, err)
			}
			interpreter = strings.TrimRight(string(b), "\x00")
		}
	}
	needed, err = f.ImportedLibraries()
	if err != nil {
		return "", nil, fmt.Errorf("%s: libraries: %w", path, err)
	}
	return interpreter, needed, nil
}

func findLibrary(name string) (string, error) {
	for _, dir := range libraryDirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("library %s: %w", name, fs.ErrNotExist)
}
