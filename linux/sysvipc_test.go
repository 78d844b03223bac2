package linux

import (
	"testing"
	"unsafe"
)

func TestSysvIPCLayout(t *testing.T) {
	for what, c := range map[string][2]uintptr{
		"semid64_ds":            {unsafe.Sizeof(SemidDs{}), 104},
		"semid64_ds.sem_nsems":  {unsafe.Offsetof(SemidDs{}.Nsems), 80},
		"msqid64_ds":            {unsafe.Sizeof(MsqidDs{}), 120},
		"msqid64_ds.msg_qbytes": {unsafe.Offsetof(MsqidDs{}.Qbytes), 88},
		"msqid64_ds.msg_lrpid":  {unsafe.Offsetof(MsqidDs{}.Lrpid), 100},
		"sembuf":                {unsafe.Sizeof(Sembuf{}), 6},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: %d, want %d", what, c[0], c[1])
		}
	}
}

func TestMqueueLayout(t *testing.T) {
	if size := unsafe.Sizeof(MqAttr{}); size != 64 {
		t.Errorf("mq_attr: %d bytes, want 64", size)
	}
}
