package file

import (
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/remote"
)

func (d *Descriptors) dumpSignalFd(f *OpenFile, l *Look) error {
	mask, err := l.info.hex("sigmask")
	if err != nil {
		return err
	}
	f.Record.Kind = &dump.File_Signalfd{Signalfd: &dump.SignalFd{Mask: mask}}
	return nil
}

func (r *Files) restoreSignalFd(s *remote.Script, file *dump.File) {
	b := s.Room(1024)
	b.Call("signalfd4", unix.SYS_SIGNALFD4, -1, b.Words(file.GetSignalfd().GetMask()), 8, 0)
	r.Settle(b, r.fds[file.GetId()])
}
