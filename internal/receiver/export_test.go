package receiver

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"cis490/internal/diskbackend"
	"cis490/internal/gate"
	"cis490/internal/wire"
)

// OpenGateAndNew is New with the gate that c describes.
func OpenGateAndNew(ctx context.Context, c Config, version, holder string, log *slog.Logger) (*Receiver, error) {
	gate, err := gate.Open(c.TrustConfig())
	if err != nil {
		return nil, err
	}
	return New(ctx, gate, c, version, holder, log, nil)
}

// Backend returns the backend of a receiver.
func (r *Receiver) Backend() *diskbackend.Backend { return r.backend.(*diskbackend.Backend) }

// SetHeaderTimeout sets how long a connection may be silent before its first request. It must be called
// before [Receiver.Serve].
func (r *Receiver) SetHeaderTimeout(d time.Duration) { r.headerTimeout = d }

// AdmittedRequests returns how many requests of admitted hosts are in flight.
func (r *Receiver) AdmittedRequests() int {
	return r.access.ActiveCount()
}

// ReviewRequests does what the timer of the access control does each second.
func (r *Receiver) ReviewRequests() { r.access.Review() }

// PortHandler returns the handler of the TLS port.
func (r *Receiver) PortHandler() http.Handler { return r.newServer(r.gate.IdentifyCaller).Handler }

// Join answers a request to join.
func (r *Receiver) Join(ctx context.Context, j wire.JoinRequest) ([]byte, error) {
	return r.join.issue(ctx, j, "the test")
}

// RecordSpace records the free space until ctx ends.
func (r *Receiver) RecordSpace(ctx context.Context) { r.recordSpace(ctx) }

// RenewOwn does what the receiver does each hour.
func (r *Receiver) RenewOwn() (bool, error) { return r.renewOwnOnce() }
