package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/outbox"
	"cis490/internal/pki"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// pingTimeout bounds the check: a person waits for it.
const pingTimeout = 20 * time.Second

// clockSkew is how far the two clocks may be apart before we say so.
const clockSkew = 5 * time.Second

// report is what --ping --json prints.
type report struct {
	OK        bool               `json:"ok"`
	URL       string             `json:"url"`
	Error     string             `json:"error,omitempty"`
	Hint      string             `json:"hint,omitempty"`
	ClockSkew float64            `json:"clock_skew_seconds"` // ours minus the receiver's
	Receiver  *wire.PingResponse `json:"receiver,omitempty"`
}

// runPing checks the whole way to the receiver and says in words what is wrong.
func runPing(c *cobra.Command, o *options) error {
	cfg, client, papers, err := o.connect(c)
	if err != nil {
		return err
	}
	if err := serviceuser.CheckReadable(files(cfg), cli.CheckLine(c)); err != nil {
		return cli.UsageError(err)
	}
	adopted, err := uplink.AdoptedBy(cfg.Dirs())
	if err != nil {
		return err
	}
	pong, skew, err := ping(c.Context(), client, papers, cfg, adopted)
	if err == nil {
		err = pong.Storage.Err()
	}
	hint := wire.Hint(err)
	if o.json {
		r := report{OK: err == nil, URL: cfg.Receiver.URL, Hint: hint, ClockSkew: skew.Seconds()}
		if err != nil {
			r.Error = err.Error()
		}
		if pong.Status != "" {
			r.Receiver = &pong
		}
		if jerr := cli.WriteJSON(c.OutOrStdout(), r); jerr != nil {
			return jerr
		}
	}
	if err != nil {
		if hint != "" {
			err = fmt.Errorf("%w\n  hint: %s", err, hint)
		}
		return &cli.Exit{Code: cli.Unreachable, Err: fmt.Errorf("ping %s: %w", cfg.Receiver.URL, err)}
	}
	if o.json {
		return nil
	}
	return printPong(c, cfg, papers, pong, skew, adopted.ID != "")
}

// ping asks the receiver, and measures how far our clock is from its own.
func ping(ctx context.Context, client *wire.Client, papers *pki.Client, cfg shipper.Config, adopted outbox.Store) (wire.PingResponse, time.Duration, error) {
	if err := papers.Check(cfg.HostID, time.Now()); err != nil {
		return wire.PingResponse{}, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	// The first one opens the connection, the second one takes the time.
	if _, err := uplink.Ping(ctx, cfg.Dirs(), client, adopted); err != nil {
		return wire.PingResponse{}, 0, err
	}
	sent := time.Now()
	pong, err := uplink.Ping(ctx, cfg.Dirs(), client, adopted)
	if err != nil {
		return wire.PingResponse{}, 0, err
	}
	return pong, sent.Add(time.Since(sent) / 2).Sub(pong.Time), nil
}

func printPong(c *cobra.Command, cfg shipper.Config, papers *pki.Client, pong wire.PingResponse, skew time.Duration, adopted bool) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "receiver\t%s, version %+q\n", cfg.Receiver.URL, pong.Receiver.Version)
	fmt.Fprintf(w, "this host\t%s by %+q\n", pong.Host, pong.Auth.Method)
	fmt.Fprintf(w, "certificate\tvalid until %s, %s\n", papers.NotAfter().UTC().Format(time.DateOnly), humanize.Time(papers.NotAfter()))
	clock := fmt.Sprintf("within %v of the receiver's", max(skew.Abs(), time.Millisecond).Round(time.Millisecond))
	if skew.Abs() > clockSkew {
		clock = fmt.Sprintf("%v off the receiver's: check both clocks, certificates depend on them", skew.Round(time.Second))
	}
	fmt.Fprintf(w, "clock\t%s\n", clock)
	fmt.Fprintf(w, "storage\t%s left for this host\n", sizeOrUnknown(pong.Storage.FreeBytes))
	fmt.Fprintf(w, "store\t%s\n", storeOf(pong.Store, adopted))
	fmt.Fprintf(w, "limits\t%s an archive, %d uploads at once\n", humanize.IBytes(uint64(max(pong.Limits.MaxSize, 0))), pong.Limits.UploadsPerHost)
	fmt.Fprintf(w, "ok\tthe receiver takes episodes of this host\n")
	return w.Flush()
}

// sizeOrUnknown shows how much is free. A file system that does not say how much counts as
// [durable.UnknownSpace], of which a receiver has taken its floor.
func sizeOrUnknown(free int64) string {
	if free > durable.UnknownSpace/2 {
		return "it is not known how much is"
	}
	return humanize.IBytes(uint64(max(free, 0)))
}

// storeOf says which store the receiver has, and whether it is this host's.
func storeOf(s *wire.Store, adopted bool) string {
	switch {
	case s == nil:
		return "not named: upgrade the receiver"
	case adopted:
		return s.ID + ", the one of this host's episodes"
	}
	return s.ID + ", not adopted before the first receipt"
}
