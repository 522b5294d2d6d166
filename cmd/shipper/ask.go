package main

import (
	"context"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// inventory is whom to ask what the receiver has.
type inventory interface {
	Inventory(ctx context.Context, asked []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, *wire.Store, error)
}

// unasked is the inventory of a receiver that cannot be asked.
type unasked struct{ err error }

// Inventory returns why.
func (u unasked) Inventory(context.Context, []wire.InventoryQuery, bool) ([]wire.InventoryEntry, *wire.Store, error) {
	return nil, nil, u.err
}

// openToAsk is open for a command that may have to ask the receiver: most often it need
// not, and works without certificate and key.
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
		up = unasked{err}
	} else {
		up = client
	}
	return c, up, cli.BecomeServiceUser(cmd, stateOf(c))
}
