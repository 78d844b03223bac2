package linux

import (
	"testing"
	"unsafe"
)

func TestNetlinkLayout(t *testing.T) {
	for name, sizes := range map[string][2]uintptr{
		"IfaCacheinfo":        {unsafe.Sizeof(IfaCacheinfo{}), 16},
		"Ndmsg":               {unsafe.Sizeof(Ndmsg{}), 12},
		"Ndmsg.State":         {unsafe.Offsetof(Ndmsg{}.State), 8},
		"RtaCacheinfo":        {unsafe.Sizeof(RtaCacheinfo{}), 32},
		"Nhmsg":               {unsafe.Sizeof(Nhmsg{}), 8},
		"Nfgenmsg":            {unsafe.Sizeof(Nfgenmsg{}), 4},
		"Tcmsg":               {unsafe.Sizeof(Tcmsg{}), 20},
		"XtGetinfo":           {unsafe.Sizeof(XtGetinfo{}), 84},
		"XtReplace":           {unsafe.Sizeof(XtReplace{}), 96},
		"XtReplace.HookEntry": {unsafe.Offsetof(XtReplace{}.HookEntry), 44},
		"XtReplace.Counters":  {unsafe.Offsetof(XtReplace{}.Counters), 88},
		"XtCounters":          {unsafe.Sizeof(XtCounters{}), 16},
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s is %d, want %d", name, sizes[0], sizes[1])
		}
	}
}
