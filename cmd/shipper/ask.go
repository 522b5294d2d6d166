package main

import (
	"context"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// inventory asks the receiver which archives it has.
type inventory interface {
	Inventory(ctx context.Context, asked []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, *wire.Store, error)
}

// failedInventory is the inventory of a receiver that cannot be asked.
type failedInventory struct{ err error }

// Inventory returns the reason.
func (u failedInventory) Inventory(context.Context, []wire.InventoryQuery, bool) ([]wire.InventoryEntry, *wire.Store, error) {
	return nil, nil, u.err
}

// openToAsk is open for a command that asks the receiver only if ask is true, and otherwise
// needs no certificate and key.
func (o *options) openToAsk(cmd *cobra.Command, ask bool) (shipper.Config, inventory, error) {
	if !ask {
		c, err := o.open(cmd)
		return c, nil, err
	}
	c, err := o.load()
	if err != nil {
		return c, nil, err
	}
	var up inventory
	if client, _, err := connect(c); err != nil {
		up = failedInventory{err}
	} else {
		up = client
	}
	return c, up, cli.BecomeServiceUser(cmd, stateOf(c))
}
