package memory

import "testing"

func TestParseSmaps(t *testing.T) {
	list, err := parseSmaps([]byte(`55f91bb10000-55f91bb14000 r--p 00001000 fe:00 247072                     /usr/bin/a b\012c (deleted)
Size:                 16 kB
VmFlags: rd mr mw me sd 
7ffc1d63f000-7ffc1d660000 rw-s 00000000 00:00 0 
Size:                132 kB
Rss:                  12 kB
ProtectionKey:         3
VmFlags: rd wr sh gd ac 
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`))
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	if a := list[0]; a.name != "/usr/bin/a b\nc (deleted)" || a.offset != 0x1000 || a.inode != 247072 || !a.has("sd") || a.prot() != 1 {
		t.Errorf("%+v", a)
	}
	if b := list[1]; !b.shared() || !b.has("gd") || b.name != "" || b.prot() != 3 || b.resident != 12<<10 || b.refused() == "" {
		t.Errorf("%+v", b)
	}
	for _, bad := range []string{"", "x", "1-2 rw 0 0 0", "g-2 rwxp 0 0 0 x"} {
		if _, err := parseVMA(bad); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}
