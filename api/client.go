package api

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"vps/api/vpsv1"
	"vps/api/vpsv1/vpsv1connect"
	"vps/api/wire"
	"vps/config"
	"vps/instance"
	"vps/instance/home"
)

// Client asks the daemon of a host. Its methods may be called at once from several goroutines.
//
// Errors have the daemon's whole text and are of the classes of package instance, or [ErrUnavailable].
type Client struct {
	Passive bool // start no daemon; set before the first call

	home    home.Home
	version string
	daemon  atomic.Value // its version, a string, once it is known
	rpc     vpsv1connect.HostClient
	http    *http.Transport
}

// Dial makes a client of the daemon of the host whose home is at. It connects with the first call, and then starts the
// daemon if none runs. version is the caller's.
func Dial(at home.Home, version string) *Client {
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	c := &Client{home: at, version: version}
	c.http = &http.Transport{
		Protocols:          &http2,
		DisableCompression: true,
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.reach(ctx) },
	}
	c.rpc = vpsv1connect.NewHostClient(&http.Client{Transport: versionReader{c}}, "http://vpsd")
	return c
}

// Close ends what is under way.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Mismatch returns the version of the daemon that answered if that is not the client's, else "".
func (c *Client) Mismatch() string {
	if v := c.daemonVersion(); v != c.version {
		return v
	}
	return ""
}

func (c *Client) daemonVersion() string {
	v, _ := c.daemon.Load().(string)
	return v
}

// versionReader notes which version of the daemon answers.
type versionReader struct{ *Client }

func (v versionReader) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := v.http.RoundTrip(r)
	if err == nil {
		v.daemon.Store(resp.Header.Get(versionHeader))
	}
	return resp, err
}

func target(id string) *vpsv1.Target { return &vpsv1.Target{Id: id} }

// done is the result of a call that has none but its error.
func (c *Client) done(_ *vpsv1.Empty, err error) error { return c.fromWire(err) }

// Version returns the daemon's version and process id.
func (c *Client) Version(ctx context.Context) (version string, pid int, err error) {
	r, err := c.rpc.Version(ctx, &vpsv1.Empty{})
	return r.GetVersion(), int(r.GetPid()), c.fromWire(err)
}

// List describes all instances.
func (c *Client) List(ctx context.Context) ([]instance.Info, error) {
	r, err := c.rpc.List(ctx, &vpsv1.Empty{})
	return wire.Each(r.GetInstances(), wire.DecodeInfo), c.fromWire(err)
}

// Show describes an instance; vps0 is the host.
func (c *Client) Show(ctx context.Context, id string) (instance.Info, error) {
	r, err := c.rpc.Show(ctx, target(id))
	return wire.DecodeInfo(r), c.fromWire(err)
}

// Args returns what an instance may do.
func (c *Client) Args(ctx context.Context, id string) (instance.Arguments, error) {
	r, err := c.rpc.Args(ctx, target(id))
	return wire.DecodeArgs(r), c.fromWire(err)
}

// Processes lists the processes of an instance.
func (c *Client) Processes(ctx context.Context, id string) ([]instance.ProcessInfo, error) {
	r, err := c.rpc.Processes(ctx, target(id))
	return wire.Each(r.GetProcesses(), wire.DecodeProcess), c.fromWire(err)
}

// Check tells whether an instance can be snapshotted now.
func (c *Client) Check(ctx context.Context, id string) (instance.CheckReport, error) {
	r, err := c.rpc.Check(ctx, target(id))
	return wire.DecodeCheck(r), c.fromWire(err)
}

// Create makes an instance whose init waits before its execve. cfg nil: the host's configuration file for it.
func (c *Client) Create(ctx context.Context, id string, cfg *config.Config) error {
	return c.done(c.rpc.Create(ctx, &vpsv1.StartRequest{Id: id, Config: wire.EncodeConfig(cfg)}))
}

// Start runs an instance. cfg nil: the host's configuration file for it, else the configuration it had last.
func (c *Client) Start(ctx context.Context, id string, cfg *config.Config) error {
	return c.done(c.rpc.Start(ctx, &vpsv1.StartRequest{Id: id, Config: wire.EncodeConfig(cfg)}))
}

// Stop ends an instance: its init's own way, and after the timeout by SIGKILL. 0 is the configuration's timeout.
func (c *Client) Stop(ctx context.Context, id string, timeout time.Duration) error {
	return c.done(c.rpc.Stop(ctx, &vpsv1.StopRequest{Id: id, TimeoutNs: timeout.Nanoseconds()}))
}

// Restart is Stop and Start.
func (c *Client) Restart(ctx context.Context, id string, timeout time.Duration) error {
	return c.done(c.rpc.Restart(ctx, &vpsv1.StopRequest{Id: id, TimeoutNs: timeout.Nanoseconds()}))
}

// Remove forgets a dead instance.
func (c *Client) Remove(ctx context.Context, id string) error {
	return c.done(c.rpc.Remove(ctx, target(id)))
}

// Kill sends a signal to an instance's init.
func (c *Client) Kill(ctx context.Context, id string, signal int) error {
	return c.done(c.rpc.Kill(ctx, &vpsv1.KillRequest{Id: id, Signal: int32(signal)}))
}

// Wait waits until an instance is dead, and tells how it ended.
func (c *Client) Wait(ctx context.Context, id string) (instance.ExitStatus, error) {
	r, err := c.rpc.Wait(ctx, target(id))
	if err != nil {
		return instance.ExitStatus{}, c.fromWire(err)
	}
	return *wire.DecodeExit(r), nil
}

// Suspend stops every task of an instance.
func (c *Client) Suspend(ctx context.Context, id string) error {
	return c.done(c.rpc.Suspend(ctx, target(id)))
}

// Resume lets a suspended instance go on.
func (c *Client) Resume(ctx context.Context, id string) error {
	return c.done(c.rpc.Resume(ctx, target(id)))
}

// Abort ends a suspended instance without letting it run again.
func (c *Client) Abort(ctx context.Context, id string) error {
	return c.done(c.rpc.Abort(ctx, target(id)))
}

// AllowNetworks says in which networks, separated by commas, an instance may have addresses, or that it may not.
func (c *Client) AllowNetworks(ctx context.Context, id, networks string, remove bool) error {
	return c.done(c.rpc.AllowNetworks(ctx, &vpsv1.NetworksRequest{Id: id, Networks: networks, Remove: remove}))
}

// MoveInterface gives an instance an interface of the host's, under another name or, with an empty one, its own.
func (c *Client) MoveInterface(ctx context.Context, id, name, inside string) error {
	return c.done(c.rpc.MoveInterface(ctx, &vpsv1.MoveInterfaceRequest{Id: id, Name: name, Inside: inside}))
}

// Park ends a suspended instance as Abort does, and keeps its addresses for it.
func (c *Client) Park(ctx context.Context, id string) error {
	return c.done(c.rpc.Park(ctx, target(id)))
}

// Release gives up the addresses that are kept for a dead instance.
func (c *Client) Release(ctx context.Context, id string) error {
	return c.done(c.rpc.Release(ctx, target(id)))
}
