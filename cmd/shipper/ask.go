package main

import (
	"context"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// failedInventory is an inventory client that cannot connect.
type failedInventory struct{ err error }

// Inventory returns the reason.
func (u failedInventory) Inventory(context.Context, []wire.InventoryQuery, bool) ([]wire.InventoryEntry, *wire.Store, error) {
	return nil, nil, u.err
}

// openToAsk is openAsUser for a command that may have to ask the receiver. Otherwise the command
// works without certificate and key.
func (o *options) openToAsk(cmd *cobra.Command, ask bool) (shipper.Config, uplink.InventoryClient, error) {
	if !ask {
		c, err := o.openAsUser(cmd)
		return c, nil, err
	}
	c, err := o.loadConfig()
	if err != nil {
		return c, nil, err
	}
	var client uplink.InventoryClient
	if connected, _, err := newClient(c); err != nil {
		client = failedInventory{err}
	} else {
		client = connected
	}
	return c, client, cli.BecomeServiceUser(cmd, stateOf(c))
}
