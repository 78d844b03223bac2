package instance

import (
	"maps"

	"vps/object/network"
)

// patience is what the network of a suspended instance has instead of its own settings: for how long TCP takes a silent peer for a
// living one (tcp(7)). The peers are not silent, but nothing comes through; and timers run on. As a rule a connection with data under
// way would end after a quarter of an hour; so it lives for more than eight hours. Those whose program has set a limit of its own
// (TCP_USER_TIMEOUT, TCP_KEEPCNT) keep that.
var patience = map[string]string{
	"net/ipv4/tcp_retries2":         "255",
	"net/ipv4/tcp_keepalive_probes": "127",
}

// lendPatience lets the connections of an instance that has just been suspended wait.
func (i *instance) lendPatience() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cell == nil || len(i.rec.Impatient) > 0 {
		return
	}
	before, err := network.SwapSysctls(i.cell.Init.PID, patience)
	if err == nil {
		i.rec.Impatient = before
		err = i.save()
	}
	if err != nil {
		i.host.log.Warn("connections do not wait for long", "instance", i.id, "error", err)
	}
}

// takePatience gives the network of an instance that goes on its own settings back.
func (i *instance) takePatience() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cell == nil || len(i.rec.Impatient) == 0 {
		return
	}
	own := maps.Clone(i.rec.Impatient)
	_, err := network.SwapSysctls(i.cell.Init.PID, own)
	if err == nil {
		i.rec.Impatient = nil
		err = i.save()
	}
	if err != nil {
		i.host.log.Warn("connections wait for too long", "instance", i.id, "error", err)
	}
}
