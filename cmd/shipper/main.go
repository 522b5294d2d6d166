// Shipper packs the finished episodes of a lab host and uploads them to the receiver. Without a
// command it runs as the daemon, and with --once it makes one pass. The commands join the host to a
// receiver, and show, verify, release, resend and delete episodes.
//
// Invariant: commands, flags, exit codes and lines on stdout are public interface. They may be
// added, never renamed.
package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/credentials"
	"cis490/internal/hostdir"
	"cis490/internal/manual"
	"cis490/internal/outbox"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

func main() { os.Exit(cli.Main(newRootCommand())) }

// options are the flags that every command has.
type options struct {
	config  string
	json    bool
	verbose bool
	full    bool // print whole digests

	missing []string // directories that the start has to make
}

func (o *options) loadConfig() (shipper.Config, error) {
	c, err := shipper.LoadConfig(o.config)
	return c, cli.UsageError(err)
}

// openAsUser is loadConfig for a command that works with the folders and reads no secret: if root
// runs it, it becomes the shipper's user.
func (o *options) openAsUser(cmd *cobra.Command) (shipper.Config, error) {
	c, err := o.loadConfig()
	if err != nil {
		return c, err
	}
	return c, cli.BecomeServiceUser(cmd, stateOf(c))
}

// connectAsUser is openAsUser for a command that talks to the receiver: it reads certificate, key
// and token first, which root may be able to read and the shipper's user not. With create, it makes
// the folders if they are missing.
func (o *options) connectAsUser(cmd *cobra.Command, create bool) (shipper.Config, *wire.Client, *credentials.Client, error) {
	c, err := o.loadConfig()
	if err != nil {
		return c, nil, nil, err
	}
	client, credentials, err := newClient(c)
	if err != nil {
		return c, nil, nil, err
	}
	state := stateOf(c)
	state.Create = create
	if create {
		o.missing = cli.MissingDirs(c.EpisodesDir, c.OutboxDir, c.ShippedDir)
	}
	return c, client, credentials, cli.BecomeServiceUser(cmd, state)
}

// connectToShip is connectAsUser for a command that packs and sends.
func (o *options) connectToShip(cmd *cobra.Command) (shipper.Config, *wire.Client, *credentials.Client, error) {
	if err := hostdir.CheckKernel(); err != nil {
		return shipper.Config{}, nil, nil, err
	}
	return o.connectAsUser(cmd, true)
}

// stateOf says where the shipper of a configuration keeps its state.
func stateOf(c shipper.Config) serviceuser.State {
	return serviceuser.State{
		Dir:    string(c.OutboxDir),
		Layout: outbox.Layout(),
		Dirs:   []string{string(c.EpisodesDir), string(c.ShippedDir)},
	}
}

func newRootCommand() *cobra.Command {
	var o options
	var once, ping bool
	root := &cobra.Command{
		Use:   "shipper",
		Short: "Upload finished episodes to the receiver",
		Long: `Shipper uploads finished episodes, and moves them to shipped_dir once they are
stored durably. Without --once or --ping it runs as a daemon until SIGTERM.

Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 an episode
is held, 4 the receiver cannot be reached or refuses this host, 5 another
shipper runs, 74 storage fault.`,
		Example: `  shipper --ping                       # test the setup
  shipper --once                       # one pass, from cron
  shipper --config ./lab-host.toml     # the daemon`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case ping:
				return runPing(c, &o)
			case once:
				return runOnce(c, &o)
			case o.json:
				return cli.UsageError(errors.New("--json is valid with --once, --ping and the commands: the daemon prints no results and logs to stderr; see 'shipper --help'"))
			}
			return runDaemon(c, &o)
		},
	}
	root.Flags().BoolVar(&once, "once", false, "process pending episodes once, show progress and exit")
	root.Flags().BoolVar(&ping, "ping", false, "test the connection without uploading")
	root.MarkFlagsMutuallyExclusive("once", "ping")
	flags := root.PersistentFlags()
	flags.StringVar(&o.config, "config", shipper.DefaultConfigFile, "configuration `FILE`")
	flags.BoolVar(&o.json, "json", false, "print results as JSON")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "log each attempt")
	pages := manual.Manual{Version: cli.Version(), Config: "lab-host.toml", Files: []manual.File{
		{Path: shipper.DefaultConfigFile, Text: "the configuration"},
		{Path: "/var/lib/cis490/data/episodes", Text: "episodes, which are sent once they contain done.marker"},
		{Path: "/var/lib/cis490/data/outbox", Text: "packed episodes, and the causes of held ones"},
		{Path: "/var/lib/cis490/data/shipped", Text: "delivered episodes"},
		{Path: "/var/lib/cis490-identity", Text: "the key and the certificate of a host that has joined"},
	}}
	root.AddCommand(cli.PrintsJSON(statusCommand(&o), checkCommand(&o), heldCommand(&o), retryCommand(&o),
		verifyCommand(&o), resendCommand(&o), pruneCommand(&o), shareCommand(&o), doctorCommand(&o))...)
	root.AddCommand(joinCommand(&o), cli.VersionCommand(), manual.GenerateCommand(pages))
	return root
}

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
