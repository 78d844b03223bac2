package ipc

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/kmem"
	"vps/linux"
	"vps/object"
	"vps/object/file"
)

// mqueues dumps the POSIX message queues of an instance (mq_overview(7)).
type mqueues struct {
	*file.Descriptors
	kernel *kmem.Reader
	found  map[uint64]*dump.Mqueue // by inode number
}

// NewDumper makes the POSIX message queues' part of a dump of open files. kernel may be nil.
func NewDumper(kernel *kmem.Reader) file.DumpKind {
	return func(d *file.Descriptors) file.Dumper {
		return &mqueues{d, kernel, make(map[uint64]*dump.Mqueue)}
	}
}

// Claims claims queues that have been opened by mq_open(3): their paths begin at the root of the namespace's own file system.
// Others are found by their paths in the instance.
func (d *mqueues) Claims(l *file.Look) (bool, error) {
	if l.FS() != linux.MQUEUE_MAGIC || l.Stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, nil
	}
	byName := strings.Count(l.Link, "/") == 1
	if !byName && l.Stat.Nlink == 0 {
		return true, l.At.Refusal("deleted message queue "+l.Link, "opened by its path")
	}
	return byName, nil
}

// Dump notes a queue that is open.
func (d *mqueues) Dump(f *file.OpenFile, l *file.Look) error {
	name := strings.TrimPrefix(l.Link, "/")
	if l.Stat.Nlink == 0 {
		name = strings.TrimSuffix(name, " (deleted)")
	}
	q, err := d.queue(l.FD, name, &l.Stat)
	if err != nil {
		return err
	}
	f.Record.Kind = &dump.File_Mqueue{Mqueue: q.Id}
	return nil
}

// Finish writes all queues of the namespace.
func (d *mqueues) Finish() error {
	if err := object.InNamespace(d.Init(), "ipc", unix.CLONE_NEWIPC, d.readAll); err != nil {
		return fmt.Errorf("POSIX message queues: %w", err)
	}
	for _, q := range object.Sorted(d.found) {
		if err := d.Sink().Put(q.Id, q); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads the queues that have names. The thread is in the ipc namespace.
func (d *mqueues) readAll() error {
	fs, err := unix.Fsopen("mqueue", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("fsconfig: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	root := os.NewFile(uintptr(fd), "mqueue")
	defer root.Close()
	list, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	dir := os.NewFile(uintptr(list), "mqueue")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := d.read(list, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (d *mqueues) read(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	_, err = d.queue(fd, name, &st)
	return err
}

// queue returns the record of the queue that a descriptor of ours is open on.
func (d *mqueues) queue(fd int, name string, st *unix.Stat_t) (*dump.Mqueue, error) {
	if q := d.found[st.Ino]; q != nil {
		return q, nil
	}
	attr, err := linux.MqGetattr(fd)
	if err != nil {
		return nil, fmt.Errorf("message queue %s: %w", name, err)
	}
	q := &dump.Mqueue{
		Id: uint64(len(d.found) + 1), Name: name, Deleted: st.Nlink == 0, Mode: st.Mode & 0o7777,
		MaxMessages: uint64(attr.Maxmsg), MaxSize: uint64(attr.Msgsize),
	}
	if q.Uid, q.Gid, err = d.Owned(st); err != nil {
		return nil, err
	}
	d.found[st.Ino] = q
	if d.kernel == nil {
		return q, d.refuseContent(q, fd, attr)
	}
	if err := d.readContent(q, fd, attr); err != nil {
		return nil, fmt.Errorf("message queue %s: %w", name, err)
	}
	return q, nil
}

// refuseContent refuses what cannot be read without a reader of the kernel's memory: to receive a message is to take it away, and
// to let in those who wait to send one.
func (d *mqueues) refuseContent(q *dump.Mqueue, fd int, attr linux.MqAttr) error {
	text := make([]byte, 256)
	n, err := unix.Pread(fd, text, 0)
	if err != nil && !errors.Is(err, unix.EBADF) { // open for writing only
		return fmt.Errorf("message queue %s: %w", q.Name, err)
	}
	if attr.Curmsgs > 0 || err != nil || !strings.Contains(string(text[:n]), "NOTIFY_PID:0") {
		return &object.Refusal{FD: -1, Object: "message queue /" + q.Name, Why: "its messages cannot be read without BPF"}
	}
	return nil
}

// readContent reads the messages and who is told of them: struct mqueue_inode_info of ipc/mqueue.c.
func (d *mqueues) readContent(q *dump.Mqueue, fd int, attr linux.MqAttr) error {
	w := d.kernel.Walk()
	info := w.File(fd).Member("f_inode").Deref().Container("mqueue_inode_info", "vfs_inode")
	for leaf := range descending(info.Member("msg_tree", "rb_node").Deref()) {
		for message := range leaf.Container("posix_msg_tree_node", "rb_node").Member("msg_list").List("msg_msg", "m_list") {
			if len(q.Queue) > int(attr.Curmsgs) {
				return errors.New("more messages than there are")
			}
			q.Queue = append(q.Queue, readMessage(w, message))
		}
	}
	owner := info.Member("notify_owner").Deref()
	if w.Err() != nil || owner.Null() {
		return w.Err()
	}
	event := info.Member("notify")
	level := owner.Member("level").Uint()
	q.Notify = &dump.MqueueNotify{
		Pid:    uint32(owner.Member("numbers").Index(int(level)).Member("nr").Uint()),
		Notify: int32(event.Member("sigev_notify").Uint()), Signal: int32(event.Member("sigev_signo").Uint()),
		Value: event.Member("sigev_value", "sival_ptr").Uint(),
	}
	if q.Notify.Notify == linux.SIGEV_THREAD {
		return &object.Refusal{FD: -1, Object: "message queue /" + q.Name, Why: "a thread is to be told of messages (SIGEV_THREAD)"}
	}
	return w.Err()
}

// maxMessages bounds how many messages and priorities a queue has: HARD_MSGMAX of include/linux/ipc_namespace.h.
const maxMessages = 65536

// descending returns the nodes of a tree (struct rb_node) from the last one on.
func descending(root kmem.Value) func(yield func(kmem.Value) bool) {
	return func(yield func(kmem.Value) bool) {
		left := maxMessages
		var visit func(node kmem.Value) bool
		visit = func(node kmem.Value) bool {
			if node.Null() {
				return true
			}
			left--
			return left >= 0 && visit(node.Member("rb_right").Deref()) && yield(node) && visit(node.Member("rb_left").Deref())
		}
		visit(root)
	}
}

// readMessage reads a struct msg_msg (include/linux/msg.h, ipc/msgutil.c): its text lies behind it to the end of the page, the rest
// behind each of a list of struct msg_msgseg.
func readMessage(w *kmem.Walk, message kmem.Value) *dump.IpcMessage {
	m := &dump.IpcMessage{Type: int64(message.Member("m_type").Uint())}
	left := int(min(message.Member("m_ts").Uint(), 16<<20)) // HARD_MSGSIZEMAX
	next := message.Member("next")
	at := message.Behind()
	room := pageSize - int(at-message.Address())
	for left > 0 && w.Err() == nil {
		n := min(left, room)
		m.Data = append(m.Data, w.Bytes(at, n)...)
		if left -= n; left > 0 {
			part := next.Deref()
			next, at = part.Member("next"), part.Behind()
			room = pageSize - int(at-part.Address())
		}
	}
	return m
}
