// Bench compares the shipped programs with other tools for the same task, and measures how time and
// memory grow with size. It is never shipped.
//
//	go run ./scripts/bench peers     cis490 and other tools on the same work
//	go run ./scripts/bench growth    time and memory against size
//	go run ./scripts/bench fleet     several receivers over one object store, and one on a disk
//	go run ./scripts/bench tables    the tables of the rows that are there
//
// Invariant: every system gets the same bytes, in turn, on a settled disk. Beside each figure
// are the other load of the machine, and what the system holds durably when it reports that it
// is done.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// options are what the command line says.
type options struct {
	dir    string  // everything that is made, below it
	bin    string  // the shipped programs
	doc    string  // the page whose generated part is replaced; empty: none
	works  string  // comma-separated names
	only   string  // comma-separated systems; empty: all
	runs   int     // rounds
	scale  float64 // of the sizes and counts
	here   bool    // stay on the file system of dir, whatever it is
	verify bool    // compare what each system stored with what it was given
}

// full reports whether the figures may go into the documentation: those of a scaled run prove
// only that the bench still works, and those of some systems serve the development of one.
func (o options) full() bool { return o.scale == 1 && o.only == "" }

// has reports whether a work was asked for.
func (o options) has(name string) bool { return listed(o.works, name) }

// takes reports whether a system was asked for.
func (o options) takes(system string) bool { return o.only == "" || listed(o.only, system) }

func listed(list, name string) bool { return slices.Contains(strings.Split(list, ","), name) }

// times returns n at this scale, but at least least.
func (o options) times(n, least int) int { return max(least, int(float64(n)*o.scale)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]struct {
		do    func(context.Context, options) error
		works string
		runs  int
	}{
		"peers": {peers, "M,S,L,receiver,idle", 5},

		"growth": {growth, "backlog,away,rows,hosts,fleet", 1},
		"fleet":  {compareFleets, "large,small", 5},
		"tables": {tables, "", 1},
	}
	// Clients of cis490 are processes of their own, so that their CPU can be told apart.
	clients := map[string]func([]string) error{"load": load, custody: custodyClient}
	if len(args) > 0 && clients[args[0]] != nil {
		return clients[args[0]](args[1:])
	}
	if len(args) == 0 || commands[args[0]].do == nil {
		return errors.New("want one of peers, growth, fleet, tables; see go doc ./scripts/bench")
	}
	c := commands[args[0]]
	var o options
	f := flag.NewFlagSet(args[0], flag.ExitOnError)
	f.StringVar(&o.dir, "dir", "bin/bench", "`folder` for the work, the runs and the raw rows")
	f.StringVar(&o.bin, "bin", "bin", "`folder` of the shipped programs")
	f.StringVar(&o.doc, "doc", "docs/performance.md", "`page` to put the tables into, at full scale; empty: print them only")
	f.StringVar(&o.works, "work", c.works, "which `works`, with commas")
	f.StringVar(&o.only, "system", "", "only these `systems`, with commas; no page")
	f.IntVar(&o.runs, "runs", c.runs, "rounds")
	f.Float64Var(&o.scale, "scale", 1, "`factor` on sizes and counts; any but 1 writes no page")
	f.BoolVar(&o.here, "here", false, "stay on the file system of -dir, even if it is an ext4 without a journal")
	f.BoolVar(&o.verify, "verify", true, "first compare what each system stores with what it was given")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	for w := range strings.SplitSeq(o.works, ",") {
		if !listed(c.works, w) {
			return fmt.Errorf("-work %s: want some of %s", w, c.works)
		}
	}
	if o.runs < 1 || o.scale <= 0 || o.scale > 1 || f.NArg() > 0 {
		return errors.New("want -runs of at least 1, -scale above 0 and at most 1, and no other arguments")
	}
	return c.do(ctx, o)
}

// say reports progress. The tables go to stdout, this does not.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
