package file

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vps/object"
	"vps/object/fdinfo"
)

// Link is a descriptor and what has been seen of it.
type Link struct {
	Handle
	Text   string       // that of the link in /proc/PID/fd
	Domain int          // of a socket, SO_DOMAIN of socket(7); 0: it is none
	info   *fdinfo.Info // of a socket; what others show there may change while nobody runs
}

// links looks at all descriptors of a process, which is stopped, in ascending order. It does so once.
func (d *Descriptors) links(p object.Proc) ([]Link, error) {
	if links, ok := d.seen[p.Task()]; ok {
		return links, nil
	}
	links, err := readLinks(&p)
	if err != nil {
		return nil, fmt.Errorf("descriptors of pid %d: %w", p.PID, err)
	}
	d.seen[p.Task()] = links
	return links, nil
}

// linksAtOnce is how many descriptors one goroutine looks at.
const linksAtOnce = 256

func readLinks(p *object.Proc) ([]Link, error) {
	fds, err := Numbers(p.Task())
	if err != nil {
		return nil, err
	}
	slices.Sort(fds)
	infos, err := fdinfo.Open(p.Task())
	if err != nil {
		return nil, err
	}
	defer infos.Close()
	links := make([]Link, len(fds))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for first := 0; first < len(fds); first += linksAtOnce {
		g.Go(func() error {
			buf := make([]byte, fdinfo.Usual)
			for i := first; i < min(first+linksAtOnce, len(fds)); i++ {
				links[i].Handle = Handle{p, p.Task(), p.PidFD, fds[i]}
				if err := links[i].read(infos, buf); err != nil {
					return fmt.Errorf("fd %d: %w", fds[i], err)
				}
			}
			return nil
		})
	}
	return links, g.Wait()
}

// read looks at a descriptor. A copy tells of a socket what its link does, in a fraction of the time. buf holds what is read there.
func (l *Link) read(infos fdinfo.Directory, buf []byte) error {
	fd, err := l.Copy()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK || unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.SOCKFS_MAGIC {
		l.Text, err = os.Readlink(l.path("fd"))
		return err
	}
	l.Text = fmt.Sprintf("socket:[%d]", st.Ino)
	if l.Domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return fmt.Errorf("family of %s: %w", l.Text, err)
	}
	info, err := infos.Read(l.fd, buf)
	if err != nil {
		return err
	}
	l.info = &info
	return nil
}

// details are what fdinfo tells.
func (l *Link) details() (fdinfo.Info, error) {
	if l.info != nil {
		return *l.info, nil
	}
	return fdinfo.Read(l.host, l.fd)
}
