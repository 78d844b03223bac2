package restore_test
import ("testing";"os";"fmt";"io";"time";"vps/snapshot";"vps/dump";"vps/internal/testimage")
const procsPy=`
import os,time
for i in range(99):
    if os.fork()==0:
        while True: time.sleep(1000)
open("/tmp/READY","w").write("x\n")
while True: time.sleep(1000)
`
const thrPy=`
import threading,time
threading.stack_size(65536)
for i in range(999): threading.Thread(target=lambda: time.sleep(100000),daemon=True).start()
open("/tmp/READY","w").write("x\n")
while True: time.sleep(1000)
`
func TestZZ(t *testing.T){
	for name,src:=range map[string]string{"procs":procsPy,"thr":thrPy} {
	if only:=os.Getenv("ZZ"); only!=""&&only!=name {continue}
	s:=newSite(t,testimage.Python(),testimage.File("/p.py",src,0o644))
	s.t=t
	s.start("/usr/bin/python3","/p.py")
	s.read("tmp/READY",lines(1))
	time.Sleep(500*time.Millisecond)
	for range 8 {
	header,_:=snapshot.Header("web")
	w,_:=dump.NewWriter(io.Discard,header,dump.Plain)
	r,err:=snapshot.Take(t.Context(), s.source(), w, false)
	if err!=nil {t.Fatal(err)}
	w.Abort()
	fmt.Print(name," ",r.Frozen.Round(100*time.Microsecond)," ")
	for _,p:=range r.Phases {fmt.Print(p.Name," ",p.Took.Round(100*time.Microsecond)," ")}
	fmt.Println()
	}
	s.end()
	}
}
