package main

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/bucket"
	"cis490/internal/cli"
	"cis490/internal/printable"
)

// probeReport is what 'receiver probe --json' prints.
type probeReport struct {
	Endpoints []string     `json:"endpoints"`
	Servers   []string     `json:"servers"` // what each endpoint calls itself
	Checks    []probeCheck `json:"checks"`
	OK        bool         `json:"ok"`
}

type probeCheck struct {
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	TookMS float64 `json:"took_ms"`
	Error  string  `json:"error,omitempty"`
}

func probeCommand(o *options) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "probe",
		Short: "Check what the object store of [store.s3] can do",
		Long: `Probe checks at each endpoint of [store.s3] that the object store does what
several receivers need: an object is created once however many try, bytes with
another SHA-256 than the signed one are refused, a body that is cut leaves
nothing, a list has what was just written, in order. It writes below probe/ in
the prefix, and removes that. The daemon does the same at its start, once a
day, and does not run with an object store that fails.

What happens to acknowledged objects at a power cut cannot be probed: see
docs/scale-out.md.

Exit codes: 1 a check failed, or the object store is unreachable.`,
		Example: "  receiver probe\n  receiver probe --json | jq '.checks[] | select(.ok | not)'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			in, err := openBucket(c, o)
			if err != nil {
				return err
			}
			report, err := bucket.Probe(c.Context(), in.Endpoints()...)
			if len(report.Checks) == 0 {
				return err
			}
			if asksJSON(c) {
				if err := cli.WriteJSON(c.OutOrStdout(), probeJSON(report)); err != nil {
					return err
				}
			} else if err := printProbe(c, report); err != nil {
				return err
			}
			if err != nil {
				return fmt.Errorf("the object store failed %d of %d checks: receivers do not start with it", len(failedChecks(report)), len(report.Checks))
			}
			return nil
		},
	})
}

func failedChecks(r bucket.Report) (failed []bucket.Check) {
	for _, c := range r.Checks {
		if c.Err != nil {
			failed = append(failed, c)
		}
	}
	return failed
}

func probeJSON(r bucket.Report) probeReport {
	p := probeReport{Endpoints: r.Endpoints, Servers: r.Servers, OK: len(failedChecks(r)) == 0}
	for _, c := range r.Checks {
		check := probeCheck{Name: c.Name, OK: c.Err == nil, TookMS: float64(c.Took) / float64(time.Millisecond)}
		if c.Err != nil {
			check.Error = c.Err.Error()
		}
		p.Checks = append(p.Checks, check)
	}
	return p
}

func printProbe(c *cobra.Command, r bucket.Report) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	for i, endpoint := range r.Endpoints {
		fmt.Fprintf(w, "endpoint\t%s\t%s\n", printable.Text(endpoint), cmp.Or(printable.Text(r.Servers[i]), "-"))
	}
	for _, check := range r.Checks {
		result := "ok"
		if check.Err != nil {
			result = "failed: " + printable.Text(strings.ReplaceAll(check.Err.Error(), "\n", "; "))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", check.Name, check.Took.Round(time.Millisecond), result)
	}
	return w.Flush()
}
