package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"

	"vps/api/vpsv1"
	"vps/api/vpsv1/vpsv1connect"
	"vps/api/wire"
	"vps/config"
	"vps/instance"
)

// versionHeader tells a client the daemon's version with every answer.
const versionHeader = "Vps-Version"

// grace is how long calls have to end after the server was told to.
const grace = 2 * time.Second

// Server answers calls for a host.
type Server struct {
	Host    Backend
	Version string
	Log     *slog.Logger
}

// Serve answers on l, which [Listen] made, until ctx ends. It closes l. Calls that are under way then are cancelled.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle(vpsv1connect.NewHostHandler(handler{s}, connect.WithInterceptors(interceptor{s.Log, ctx})))
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Protocols: &http2,
		ErrorLog:  slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(versionHeader, s.Version)
			mux.ServeHTTP(w, r)
		}),
		BaseContext: func(net.Listener) context.Context { return calls },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*conn).peer)
		},
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if err := srv.Shutdown(last); err != nil {
			stopped <- srv.Close()
		} else {
			stopped <- nil
		}
	})
	err := srv.Serve(l)
	if stop() {
		return err
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// handler is the service; its methods translate.
type handler struct{ *Server }

func (h handler) Version(context.Context, *vpsv1.Empty) (*vpsv1.VersionResponse, error) {
	return &vpsv1.VersionResponse{Version: h.Server.Version, Pid: int32(os.Getpid())}, nil
}

func (h handler) List(context.Context, *vpsv1.Empty) (*vpsv1.ListResponse, error) {
	return &vpsv1.ListResponse{Instances: wire.Each(h.Host.List(), wire.EncodeInfo)}, nil
}

func (h handler) Show(_ context.Context, r *vpsv1.Target) (*vpsv1.Instance, error) {
	info, err := h.Host.Show(r.Id)
	return wire.EncodeInfo(info), err
}

func (h handler) Args(_ context.Context, r *vpsv1.Target) (*vpsv1.Arguments, error) {
	args, err := h.Host.Args(r.Id)
	return wire.EncodeArgs(args), err
}

func (h handler) Processes(_ context.Context, r *vpsv1.Target) (*vpsv1.ProcessesResponse, error) {
	list, err := h.Host.Processes(r.Id)
	return &vpsv1.ProcessesResponse{Processes: wire.Each(list, wire.EncodeProcess)}, err
}

func (h handler) Check(ctx context.Context, r *vpsv1.Target) (*vpsv1.CheckReport, error) {
	report, err := h.Host.Check(ctx, r.Id)
	return wire.EncodeCheck(report), err
}

func (h handler) Create(ctx context.Context, r *vpsv1.StartRequest) (*vpsv1.Empty, error) {
	return h.withConfig(ctx, r, h.Host.Create)
}

func (h handler) Start(ctx context.Context, r *vpsv1.StartRequest) (*vpsv1.Empty, error) {
	return h.withConfig(ctx, r, h.Host.Start)
}

func (h handler) withConfig(ctx context.Context, r *vpsv1.StartRequest, verb func(context.Context, string, *config.Config) error) (*vpsv1.Empty, error) {
	cfg, err := wire.DecodeConfig(r.Config)
	if err != nil {
		return nil, err
	}
	return &vpsv1.Empty{}, verb(ctx, r.Id, cfg)
}

func (h handler) Stop(ctx context.Context, r *vpsv1.StopRequest) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Stop(ctx, r.Id, time.Duration(r.TimeoutNs))
}

func (h handler) Restart(ctx context.Context, r *vpsv1.StopRequest) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Restart(ctx, r.Id, time.Duration(r.TimeoutNs))
}

func (h handler) Remove(ctx context.Context, r *vpsv1.Target) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Remove(ctx, r.Id)
}

func (h handler) Kill(ctx context.Context, r *vpsv1.KillRequest) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Kill(ctx, r.Id, int(r.Signal))
}

func (h handler) Wait(ctx context.Context, r *vpsv1.Target) (*vpsv1.ExitStatus, error) {
	status, err := h.Host.Wait(ctx, r.Id)
	return wire.EncodeExit(&status), err
}

func (h handler) Suspend(ctx context.Context, r *vpsv1.Target) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Suspend(ctx, r.Id)
}

func (h handler) Resume(ctx context.Context, r *vpsv1.Target) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Resume(ctx, r.Id)
}

func (h handler) Abort(ctx context.Context, r *vpsv1.Target) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Abort(ctx, r.Id)
}

func (h handler) AllowNetworks(ctx context.Context, r *vpsv1.NetworksRequest) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.AllowNetworks(ctx, r.Id, r.Networks, r.Remove)
}

func (h handler) MoveInterface(ctx context.Context, r *vpsv1.MoveInterfaceRequest) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.MoveInterface(ctx, r.Id, r.Name, r.Inside)
}

func (h handler) Park(ctx context.Context, r *vpsv1.Target) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Park(ctx, r.Id)
}

func (h handler) Release(ctx context.Context, r *vpsv1.Target) (*vpsv1.Empty, error) {
	return &vpsv1.Empty{}, h.Host.Release(ctx, r.Id)
}

func (h handler) Events(ctx context.Context, _ *vpsv1.Empty, out *connect.ServerStream[vpsv1.Event]) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := h.Host.Events(ctx)
	if err := out.Send(&vpsv1.Event{}); err != nil {
		return err
	}
	for e := range events {
		if err := out.Send(wire.EncodeEvent(e)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (h handler) Logs(ctx context.Context, r *vpsv1.LogsRequest, out *connect.ServerStream[vpsv1.LogsResponse]) error {
	log, err := h.Host.Logs(ctx, r.Id, instance.LogOptions{Follow: r.Follow, Tail: r.Tail})
	if err != nil {
		return err
	}
	defer log.Close()
	defer context.AfterFunc(ctx, func() { log.Close() })()
	return pump(log, func(b []byte) error { return out.Send(&vpsv1.LogsResponse{Data: b}) })
}
