// Package uplink holds what all requests of a lab host to its receiver have in common:
// retries while the receiver is busy, the error for a receiver that cannot be reached, and
// the check that the receiver still has the store to which this host sent its episodes.
//
// Invariant: no response of a store other than the adopted one ([Adoption]) leads to an
// episode being retired, deleted or sent again.
package uplink

import (
	"context"

	"cis490/internal/wire"
)

// InventoryClient is the part of [wire.Client] that asks which archives the receiver has.
type InventoryClient interface {
	Inventory(ctx context.Context, queries []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, *wire.Store, error)
}

// PingClient is the part of [wire.Client] that pings.
type PingClient interface {
	Ping(ctx context.Context) (wire.PingResponse, error)
	InventoryClient
}

// ReportClient is the part of [wire.Client] that reports.
type ReportClient interface {
	SendReport(ctx context.Context, r wire.Report) (*wire.PingResponse, error)
	InventoryClient
}

// UnreachableError says that the receiver did not answer or refused the request. The cause
// is the receiver or the path to it, not this host's disk.
type UnreachableError struct{ Err error }

func (e *UnreachableError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }
