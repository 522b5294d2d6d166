package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/printable"
	"cis490/internal/wire"
)

// storeCommand returns "receiver store".
func storeCommand(o *options) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "store",
		Short: "Show the id of the store, and what it replaces",
		Long: `Store shows the id of the store. The receiver creates it in store.json in
data_dir at its first start, and it moves with the data. Hosts remember the id.
They do not retire episodes for a receipt from another store, or from this store
once its index is shorter than an earlier receipt said.`,
		Example: `  receiver store
  receiver store replaces 4TQ7ZC5WJ2M3N6PXVB1KD8RHSE
  receiver store copy --to s3 --new-config s3.toml
  receiver store --json | jq -r .id`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.openDataDir(c)
			if err == nil {
				err = refuseOnS3(cfg, "the store is in a bucket: 'receiver status' shows its id")
			}
			if err != nil {
				return err
			}
			is, err := datadir.InspectStore(string(cfg.DataDir))
			switch {
			case err != nil:
				return explainNoStore(err)
			case asJSON:
				return cli.WriteJSON(c.OutOrStdout(), is)
			}
			return printStore(c.OutOrStdout(), is)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(replacesCommand(o), copyCommand(o))
	return c
}

func replacesCommand(o *options) *cobra.Command {
	rewound := false
	c := &cobra.Command{
		Use:   "replaces OLD-ID | --rewound",
		Short: "Declare that this store replaces another",
		Long: `Replaces declares that this store replaces the store OLD-ID or, with --rewound,
its own former state, after an older image of it was restored. All hosts of that
store adopt this one with their next request. It can run while the receiver
runs, persists across restarts and may be repeated; the last 64 ids are kept.

OLD-ID is in the log of a host and in 'shipper status'. It is 'unnamed' for
hosts that retired their episodes before stores had ids.

Episodes that a host has retired and this store has lost are still in the host's
shipped_dir: run 'shipper verify --heal' on each host afterwards.`,
		Example: `  receiver store replaces 4TQ7ZC5WJ2M3N6PXVB1KD8RHSE
  receiver store replaces --rewound`,
		Args: func(_ *cobra.Command, args []string) error { return replacedStore(args, rewound) },
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := o.openDataDir(c)
			if err == nil {
				err = refuseOnS3(cfg, "a store in a bucket cannot replace another one yet; hosts that shipped to another store keep their episodes")
			}
			if err != nil {
				return err
			}
			holder := cli.LockHolder("receiver store replaces")
			var did datadir.StoreChange
			if rewound {
				did, err = datadir.RewindStore(c.Context(), string(cfg.DataDir), holder, time.Now())
			} else {
				did, err = datadir.ReplaceStore(c.Context(), string(cfg.DataDir), args[0], holder)
			}
			if err != nil {
				return explainNoStore(err)
			}
			if asksJSON(c) {
				return cli.WriteJSON(c.OutOrStdout(), did)
			}
			return printReplaced(c.OutOrStdout(), did)
		},
	}
	addJSON(c, printsObject)
	c.Flags().BoolVar(&rewound, "rewound", false, "an older image of this store was restored")
	return c
}

// replacedStore checks that the arguments are one id, or none with --rewound.
func replacedStore(args []string, rewound bool) error {
	switch {
	case rewound && len(args) > 0:
		return errors.New("--rewound takes no OLD-ID: this store itself was rewound")
	case rewound:
		return nil
	case len(args) != 1:
		return errors.New("requires the OLD-ID of the store that this one replaces, or --rewound")
	}
	_, err := wire.ParseStoreID(args[0])
	return err
}

func explainNoStore(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (the receiver creates it at its first start; if hosts have adopted this store already, restore the file from a backup of the data directory)", err)
	}
	return err
}

func printStore(to io.Writer, is datadir.Identity) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "store\t%s\n", is.ID)
	fmt.Fprintf(w, "since\t%s\n", is.CreatedAt.UTC().Format(time.RFC3339))
	fmt.Fprintf(w, "index\t%s\n", indexLine(is))
	fmt.Fprintf(w, "replaces\t%s\n", cmp.Or(strings.Join(is.Replaces, " "), "none"))
	if is.MovedTo != "" {
		fmt.Fprintf(w, "moved to\t%s\n", printable.Text(is.MovedTo))
	}
	if is.CopiedFrom != "" {
		fmt.Fprintf(w, "incomplete\tit is being copied from %s\n", printable.Text(is.CopiedFrom))
	}
	return w.Flush()
}

func indexLine(is datadir.Identity) string {
	if is.Empty {
		return "empty, no rows yet"
	}
	line := fmt.Sprintf("%s (%d bytes)", humanize.IBytes(uint64(is.IndexBytes)), is.IndexBytes)
	if is.New {
		line += ", created empty at " + is.CreatedAt.UTC().Format(time.DateTime) + " UTC"
	}
	return line
}

// storeLine is the store's line of 'receiver status'.
func storeLine(is *datadir.Identity) string {
	if is == nil {
		return "unknown"
	}
	line := is.ID + ", index " + indexLine(*is)
	if n := len(is.Replaces); n > 0 {
		line += fmt.Sprintf(", replaces %d others (see 'receiver store')", n)
	}
	return line
}

// printReplaced prints what was changed, and what to do next.
func printReplaced(to io.Writer, did datadir.StoreChange) error {
	verb := "replaces"
	if !did.Changed {
		verb = "already replaces"
	}
	return printf(to, `store %s %s %s
hosts of %s adopt this store with their next request; no restart is needed
run 'shipper verify --heal' on each host: it sends episodes that this store lacks again
`, did.ID, verb, did.Former, did.Former)
}
