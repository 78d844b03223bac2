package instance

import (
	"fmt"
	"strings"
	"testing"

	"vps/internal/testimage"
)

// served returns how many requests the nginx of an instance has served.
func (h *testHost) served(id string) int {
	out, _, status := h.run(id, ExecSpec{Args: []string{"wget", "-qO-", "http://127.0.0.1/status"}}, "")
	if status != 0 {
		return 0 // not yet
	}
	var accepted, handled, requests int
	if _, numbers, ok := strings.Cut(out, "requests"); !ok {
		h.t.Fatalf("nginx: %s", out)
	} else if _, err := fmt.Sscan(numbers, &accepted, &handled, &requests); err != nil {
		h.t.Fatalf("nginx: %s: %v", out, err)
	}
	return requests
}

// nginx and 200 connections that wrk keeps busy, both in the instance, see nothing of five restores.
func TestNginx(t *testing.T) {
	h := newHost(t, testimage.Nginx(), testimage.Program("/usr/bin/wrk", "/usr/bin/wrk"), testimage.File("/srv/index.html", "hello\n", 0o644))
	h.start("web")
	h.detach("web", "", "nginx")
	h.until("nginx", func() bool { return h.served("web") > 0 })
	h.detach("web", "", "sh", "-c", "wrk -t 2 -c 200 -d 8s --timeout 30s http://127.0.0.1:80/index.html >/tmp/wrk 2>&1; echo done >>/tmp/wrk")
	for range 5 {
		before := h.served("web")
		h.until("requests", func() bool { return h.served("web") > before+500 })
		if report := h.fileInside("tmp/wrk"); strings.Contains(report, "done") {
			t.Fatalf("wrk ended too early: %s", report)
		}
		h.afresh("web")
	}
	h.until("wrk", func() bool { return strings.HasSuffix(h.fileInside("tmp/wrk"), "done\n") })
	report := h.fileInside("tmp/wrk")
	if strings.Contains(report, "Socket errors") || strings.Contains(report, "Non-2xx") || !strings.Contains(report, "requests in") {
		t.Error(report)
	}
}
