package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// growth measures what time and memory grow with, and draws it.
func growth(ctx context.Context, o options) error {
	l, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	quiet()
	b, err := readBook(o, "growth")
	if err != nil {
		return err
	}
	for _, c := range curves(l, o) {
		if !o.has(c.name) {
			continue
		}
		var rows []row
		for round := range o.runs {
			for _, at := range c.at {
				r, err := c.run(ctx, at)
				if err != nil {
					return fmt.Errorf("%s at %d: %w", c.name, at, err)
				}
				r.System, r.Round, r.At = cis490, round+1, at
				rows = append(rows, r)
				say("%s at %d: %.2f s, CPU %.2f+%.2f s, %.0f/%.0f MiB, start %.1f ms, PUT %.2f ms, foreign %.2f cores",
					c.name, at, r.Wall, r.ClientCPU, r.ServerCPU, r.ClientMiB, r.ServerMiB, r.Start, r.P50, r.Foreign)
			}
		}
		b[c.name] = newSection(o, rows)
		if err := b.write(o, "growth"); err != nil {
			return err
		}
	}
	return graphs(o, b)
}

// curve is one thing that grows.
type curve struct {
	name string
	at   []int
	run  func(ctx context.Context, at int) (row, error)
}

func curves(l *lab, o options) []curve {
	hosts := []int{1, 2, 4, 8, 16, 32, 64}
	if !o.full() {
		hosts = hosts[:3]
	}
	return []curve{
		{"backlog", powers(10, o.times(100_000, 100)), func(ctx context.Context, n int) (row, error) { return l.backlog(ctx, n, true) }},
		{"away", powers(10, o.times(100_000, 100)), func(ctx context.Context, n int) (row, error) { return l.backlog(ctx, n, false) }},
		{"rows", powers(1000, o.times(10_000_000, 10_000)), func(ctx context.Context, n int) (row, error) { return l.rows(ctx, n, o.times(500, 50)) }},
		{"hosts", hosts, func(ctx context.Context, n int) (row, error) { return l.hosts(ctx, n, o.times(1920, 128)) }},
		{"fleet", []int{0, o.times(100, 2)}, func(ctx context.Context, n int) (row, error) {
			return l.fleet(ctx, n, time.Duration(float64(10*time.Minute)*o.scale))
		}},
	}
}

// powers returns from, and ten times as many, up to to.
func powers(from, to int) []int {
	var all []int
	for n := from; n <= to; n *= 10 {
		all = append(all, n)
	}
	return all
}

// backlog is one pass of the shipper over n waiting episodes.
func (l *lab) backlog(ctx context.Context, n int, there bool) (r row, err error) {
	p, err := l.pair(ctx)
	if err != nil {
		return row{}, err
	}
	j := job{servers: p.receiver.processes(), disk: l.base}
	if there {
		defer func() { err = errors.Join(err, p.stop()) }()
	} else {
		j.servers, j.exit = nil, unreachable
		if err := p.stop(); err != nil {
			return row{}, err
		}
	}
	w := tiny(n)
	for i := range n {
		if err := w.episode(l.run("src", w.id(i)), i); err != nil {
			return row{}, err
		}
	}
	if err := settle(l.base); err != nil {
		return row{}, err
	}
	j.client = l.shipper(ctx)
	r, err = measure(j)
	r.Episodes = n
	return r, err
}

// rows is a receiver's start, and its PUTs one after another, with an index of n rows. Their
// archives do not exist: neither operation looks for them.
func (l *lab) rows(ctx context.Context, n, puts int) (r row, err error) {
	s := loadShape{"17 kB", 1, puts, 17_000}
	if err := l.fresh(); err != nil {
		return row{}, err
	}
	if err := writeRows(l.run("data", "index.jsonl"), n); err != nil {
		return row{}, err
	}
	if _, err := l.host(ctx, hostOf(0)); err != nil {
		return row{}, err
	}
	if err := settle(l.base); err != nil {
		return row{}, err
	}
	begun := time.Now()
	srv, err := l.serve(ctx, "receiver")
	if err != nil {
		return row{}, err
	}
	start := time.Since(begun)
	defer func() { err = errors.Join(err, srv.stop()) }()
	r, err = l.client(ctx, s, srv.url, job{servers: srv.processes()})
	r.Start = float64(start.Microseconds()) / 1000
	return r, err
}

// writeRows writes rows as the receiver does.
func writeRows(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	to := bufio.NewWriterSize(f, 1<<20)
	for i := range n {
		if _, err := fmt.Fprintf(to, `{"commit": "%040x", "episode_id": "ep-%08d", "host_id": "lab-%02d", `+
			`"received_at_wall": "2026-05-01T00:%02d:%02d.%06d+00:00", "schema_version": 1, "sha256": "%064x", "size_bytes": 17000}`+"\n",
			i, i, i%64, i/60%60, i%60, i%1_000_000, i+1); err != nil {
			return err
		}
	}
	if err := to.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// hosts is n shippers at once. Together they have the same number of episodes of workload S,
// whatever n is.
func (l *lab) hosts(ctx context.Context, n, episodes int) (r row, err error) {
	if err := l.fresh(); err != nil {
		return row{}, err
	}
	w := work{"S", episodes, 8, 40 << 10}
	if err := w.generate(l.path("work", w.folder())); err != nil {
		return row{}, err
	}
	srv, err := l.serve(ctx, "receiver")
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	var confs []string
	for h := range n {
		conf, err := l.member(ctx, h, srv.url)
		if err != nil {
			return row{}, err
		}
		confs = append(confs, conf)
	}
	for i := range episodes {
		if err := copyTree(l.path("work", w.folder(), w.id(i)), l.run(member(i%n), "src", w.id(i))); err != nil {
			return row{}, err
		}
	}
	if err := settle(l.base); err != nil {
		return row{}, err
	}
	client := script(ctx, append(os.Environ(), "BIN="+l.bin, "CONFS="+strings.Join(confs, " ")), allAtOnce)
	r, err = measure(job{client: client, servers: srv.processes(), disk: l.base})
	r.Episodes = episodes
	return r, err
}

// fleet measures a receiver with n idle hosts, whose daemons only ping and report. Wall is the length of the
// measurement.
func (l *lab) fleet(ctx context.Context, n int, span time.Duration) (r row, err error) {
	if err := l.fresh(); err != nil {
		return row{}, err
	}
	srv, err := l.serve(ctx, "receiver")
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	for h := range n {
		conf, err := l.member(ctx, h, srv.url)
		if err != nil {
			return row{}, err
		}
		p, err := l.spawn(conf+".log", filepath.Join(l.bin, "shipper"), "--config", conf)
		if err != nil {
			return row{}, err
		}
		defer func() { err = errors.Join(err, p.stop()) }()
	}
	if err := waitFor(ctx, min(span, 30*time.Second)); err != nil { // the first reports
		return row{}, err
	}
	before, spent := look(), treeCPU(srv.pid())
	if err := waitFor(ctx, span); err != nil {
		return row{}, err
	}
	return row{
		Episodes: n, Wall: look().at.Sub(before.at).Seconds(), ServerCPU: (treeCPU(srv.pid()) - spent).Seconds(),
		ServerMiB: float64(resident(srv.pid())) / 1024,
	}, nil
}

func waitFor(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// allAtOnce runs one shipper per configuration. A pass tries each episode once, and ends early
// if the receiver has enough uploads in flight. Then another pass follows, as with cron, but
// sooner.
const allAtOnce = `pids=()
for conf in $CONFS; do
  (
    for pass in $(seq 100); do
      "$BIN/shipper" --config "$conf" --once 2>"$conf.log" && exit 0
      sleep 0.1
    done
    tail -n 3 "$conf.log" >&2
    exit 1
  ) &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done`

func member(h int) string { return fmt.Sprintf("lab-%02d", h+1) }

// member prepares the folders of one host.
func (l *lab) member(ctx context.Context, h int, url string) (conf string, err error) {
	name := member(h)
	credentials, err := l.host(ctx, name)
	if err != nil {
		return "", err
	}
	for _, dir := range []string{"src", "outbox", "shipped"} {
		if err := os.MkdirAll(l.run(name, dir), 0o755); err != nil {
			return "", err
		}
	}
	conf = l.run(name, "lab-host.toml")
	return conf, l.write(conf, shipperConf, name, l.run(name, "src"), l.run(name, "outbox"), l.run(name, "shipped"), url, credentials)
}
