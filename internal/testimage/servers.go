package testimage

import (
	"io/fs"
	"path/filepath"
)

// postgresLibrary and postgresShare are where Debian's PostgreSQL lies.
const (
	postgresLibrary = "/usr/lib/postgresql/15"
	postgresShare   = "/usr/share/postgresql/15"
)

// Postgres adds PostgreSQL 15 in Debian's places, without a data directory and with nothing that starts it. User 1000 can run it.
func Postgres() Option {
	return func(m *image) error {
		for _, program := range []string{"bin/initdb", "bin/postgres", "bin/psql", "lib/dict_snowball.so", "lib/plpgsql.so"} {
			path := filepath.Join(postgresLibrary, program)
			if err := m.program(path, path); err != nil {
				return err
			}
		}
		// Debian's PostgreSQL reads the system's time zones.
		for _, dir := range []string{postgresShare, "/usr/share/zoneinfo/Etc"} {
			if err := m.tree(dir); err != nil {
				return err
			}
		}
		return nil
	}
}

// Node adds Node.js.
func Node() Option {
	return func(m *image) error { return m.program("/usr/bin/node", "/usr/bin/node") }
}

// tree copies a directory of the host, with what its links lead to in place of them.
func (m *image) tree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return mkdir(m.path(path), 0o755)
		}
		return copyFile(path, m.path(path))
	})
}
