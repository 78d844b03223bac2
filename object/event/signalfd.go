package event

import (
	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/object/file"
	"vps/remote"
)

func dumpSignalFd(f *file.OpenFile, l *file.Look) error {
	mask, err := l.Hex("sigmask")
	if err != nil {
		return err
	}
	f.Record.Kind = &dump.File_Signalfd{Signalfd: &dump.SignalFd{Mask: mask}}
	return nil
}

func (r *restorer) restoreSignalFd(s *remote.Script, file *dump.File, fd int) {
	b := s.Room(1024)
	b.Call("signalfd4", unix.SYS_SIGNALFD4, -1, b.Words(file.GetSignalfd().GetMask()), 8, 0)
	r.Settle(b, fd)
}
