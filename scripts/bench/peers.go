package main

import (
	"context"
	"slices"
)

// peers runs the requested systems, and puts the tables into the page.
func peers(ctx context.Context, o options) error {
	if err := install(ctx); err != nil {
		return err
	}
	l, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	if o.verify && (o.has("M") || o.has("S") || o.has("L")) {
		for _, s := range systems() {
			if !o.takes(s.name) {
				continue
			}
			if err := l.prove(ctx, s); err != nil {
				return err
			}
		}
	}
	quiet()
	b, err := readBook(o, "peers")
	if err != nil {
		return err
	}
	if err := b.fill(ctx, o, "peers", parts(l, o)); err != nil {
		return err
	}
	return tables(ctx, o)
}

// fill measures the parts that were asked for.
func (b book) fill(ctx context.Context, o options, name string, all []part) error {
	for _, part := range all {
		part.systems = slices.DeleteFunc(part.systems, func(s string) bool { return !o.takes(s) })
		if !o.has(part.work) || len(part.systems) == 0 {
			continue
		}
		rows, err := inTurn(ctx, o.runs, part)
		if err != nil {
			return err
		}
		b[part.name] = newSection(o, rows)
		if err := b.write(o, name); err != nil { // what is measured is kept, whatever comes after
			return err
		}
	}
	return nil
}

// part is a table: systems that do the same, in turn.
type part struct {
	name    string
	work    string // what -work calls it
	systems []string
	run     func(ctx context.Context, system string) (row, error)
}

func parts(l *lab, o options) []part {
	var all []part
	for _, w := range shaped(o) {
		p := part{name: w.name, work: w.name}
		byName := map[string]system{}
		for _, s := range systems() {
			if w.episodes == 1 && (s.name == "shell-2" || s.name == "shell-batch") {
				continue // of one episode they are what shell is
			}
			byName[s.name] = s
			p.systems = append(p.systems, s.name)
		}
		if w.name == "S" { // with larger ones the disk does not dominate
			byName[custody], byName[cis490Settled] = diskAlone(), settledCis490()
			p.systems = append(p.systems, custody, cis490Settled)
		}
		p.run = func(ctx context.Context, name string) (row, error) {
			if err := w.generate(l.path("work", w.folder())); err != nil {
				return row{}, err
			}
			return l.send(ctx, byName[name], w)
		}
		all = append(all, p)
	}
	for _, load := range loads(o) {
		all = append(all, part{load.name, "receiver", []string{cis490, "nginx", custody}, func(ctx context.Context, name string) (row, error) {
			return l.load(ctx, load, name)
		}})
	}
	return append(
		all,
		part{"idle", "idle", []string{cis490}, func(ctx context.Context, _ string) (row, error) { return l.idle(ctx, o) }},
		part{"wake-up", "idle", []string{cis490}, func(ctx context.Context, _ string) (row, error) { return l.wakeUp(ctx, o) }},
	)
}

// inTurn runs A B A B, not A A B B: what changes on the machine in the meantime changes for
// all.
func inTurn(ctx context.Context, rounds int, p part) ([]row, error) {
	var rows []row
	for round := range rounds {
		for _, name := range p.systems {
			r, err := p.run(ctx, name)
			if err != nil {
				return nil, err
			}
			r.System, r.Round = name, round+1
			rows = append(rows, r)
			say("%s %d/%d %-12s %7.2f s, CPU %.2f+%.2f s, %.0f/%.0f MiB, foreign %.2f cores",
				p.name, r.Round, rounds, name, r.Wall, r.ClientCPU, r.ServerCPU, r.ClientMiB, r.ServerMiB, r.Foreign)
		}
	}
	return rows, nil
}
