package testimage

import (
	"errors"
	"io/fs"
	"os"
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

// Nginx adds nginx, with a configuration that serves /srv on port 80, and how many requests it has served as /status, and says what it does on its standard error. It stays in the
// foreground, with one worker.
func Nginx() Option {
	const config = `daemon off;
worker_processes 1;
user root root;
pid /tmp/nginx.pid;
error_log /dev/stderr;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 1000000000;
	keepalive_timeout 1h;
	client_max_body_size 0;
	client_body_temp_path /tmp/nginx-body;
	proxy_temp_path /tmp/nginx-proxy;
	fastcgi_temp_path /tmp/nginx-fastcgi;
	uwsgi_temp_path /tmp/nginx-uwsgi;
	scgi_temp_path /tmp/nginx-scgi;
	server { listen 80 backlog=4096; listen [::]:80 backlog=4096; root /srv; location = /status { stub_status; } }
}
`
	return func(m *image) error {
		program := "/usr/sbin/nginx"
		if _, err := os.Stat(program); err != nil {
			root, err := moduleRoot()
			if err != nil {
				return err
			}
			program = filepath.Join(root, ".cache/nginx/usr/sbin/nginx") // scripts/setup put it there
		}
		if err := m.program(program, "/usr/sbin/nginx"); err != nil {
			return err
		}
		return errors.Join(m.write("/etc/nginx/nginx.conf", config, 0o644), mkdir(m.path("/var/log/nginx"), 0o755), mkdir(m.path("/srv"), 0o755))
	}
}

// moduleRoot is the folder with go.mod, where the calling test or program is beneath it.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod in this folder and those above")
		}
	}
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
