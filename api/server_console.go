package api

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"vps/api/vpsv1"
	"vps/api/wire"
	"vps/instance"
)

func (h handler) Console(ctx context.Context, stream *connect.BidiStream[vpsv1.ConsoleRequest, vpsv1.ConsoleResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	id, ok := first.Kind.(*vpsv1.ConsoleRequest_Id)
	if !ok {
		return fmt.Errorf("console: %w: the first message has to be id", instance.ErrInvalid)
	}
	t, err := h.Host.Console(ctx, id.Id)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := stream.Send(&vpsv1.ConsoleResponse{}); err != nil { // it is there
		return err
	}
	go func() {
		defer t.Close() // ends the pump below
		for {
			m, err := stream.Receive()
			if err != nil {
				return
			}
			switch k := m.Kind.(type) {
			case *vpsv1.ConsoleRequest_Input:
				_, err = t.Write(k.Input)
			case *vpsv1.ConsoleRequest_Window:
				err = t.Resize(wire.DecodeWindow(k.Window))
			}
			if err != nil {
				h.Log.Debug("console", "id", id.Id, "err", err)
				return
			}
		}
	}()
	return pump(t, func(b []byte) error { return stream.Send(&vpsv1.ConsoleResponse{Output: b}) })
}
