// Receiver stores the archives that lab hosts upload, one per episode, with a row for each in
// index.jsonl. Without a command it runs as the daemon. The commands set it up, let hosts join, and
// check and repair the store.
//
// Invariant: commands, flags, exit codes and lines on stdout are public interface. They may be
// added, never renamed.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/manual"
	"cis490/internal/receiver"
	"cis490/internal/serviceuser"
)

func main() { os.Exit(cli.Main(newRootCommand())) }

// options are the flags of the daemon and of the commands that need its
// configuration.
type options struct {
	config  string
	verbose bool
}

func (o *options) loadConfig() (receiver.Config, error) {
	c, err := receiver.LoadConfig(o.config)
	return c, cli.UsageError(err)
}

// openAsUser is loadConfig for a command that works with the data directory and reads no secret:
// if root runs it, it becomes the receiver's user.
func (o *options) openAsUser(cmd *cobra.Command) (receiver.Config, error) {
	c, err := o.loadConfig()
	if err != nil {
		return c, err
	}
	return c, cli.BecomeServiceUser(cmd, stateOf(c))
}

// stateOf says where the receiver of a configuration keeps its state.
func stateOf(c receiver.Config) serviceuser.State {
	return serviceuser.State{Dir: string(c.DataDir), Layout: receiver.Layout(true)}
}

func newRootCommand() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "receiver",
		Short: "Receive and store episodes from lab hosts",
		Long: `Receiver stores one archive per episode, one directory per host, and appends a
row to index.jsonl. Without a command it runs as a daemon until SIGTERM.

Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 5 another
receiver runs, 74 storage fault.`,
		Example: `  sudo receiver setup --name receiver.lab,10.0.0.1
  sudo receiver invite lab-01
  receiver --config ./receiver.toml
  receiver index verify --deep`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDaemon(c, &o) },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&o.config, "config", receiver.DefaultConfigFile, "configuration `FILE`")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
	pages := manual.Manual{Version: cli.Version(), Config: "receiver.toml", Files: []manual.File{
		{Path: receiver.DefaultConfigFile, Text: "the configuration"},
		{Path: "/etc/cis490/pki", Text: "the CAs, and the receiver's certificate and key"},
		{Path: "/var/lib/cis490/episodes", Text: "the archives, in a directory per host"},
		{Path: "/var/lib/cis490/index.jsonl", Text: "the index: one row per archive"},
		{Path: "/var/lib/cis490/quarantine", Text: "corrupt archives"},
		{Path: "/var/lib/cis490-identity", Text: "the key that signs for hosts, invitations, and what is known about hosts"},
	}}
	root.AddCommand(setupCommand(&o), inviteCommand(&o), pkiCommand(&o), hostsCommand(&o), storeCommand(&o), indexCommand(&o), checkCommand(&o), scrubCommand(&o), statusCommand(&o), hooksCommand(&o), doctorCommand(&o), probeCommand(&o), cli.VersionCommand(), manual.GenerateCommand(pages))
	return root
}
