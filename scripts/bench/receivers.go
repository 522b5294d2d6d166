package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// loads are those of a receiver alone.
func loads(o options) []loadShape {
	return []loadShape{
		{"64 × 4 MiB", 64, o.times(256, 64), 4 << 20},
		{"8 × 17 kB", 8, o.times(6000, 64), 17_000},
		{"64 × 17 kB", 64, o.times(6000, 64), 17_000},
	}
}

type loadShape struct {
	name     string
	conns    int
	requests int
	size     int
}

// load runs one load against one receiver.
func (l *lab) load(ctx context.Context, s loadShape, system string) (r row, err error) {
	for i := range loadHosts {
		if _, err := l.host(ctx, hostOf(i)); err != nil {
			return row{}, err
		}
	}
	if err := l.fresh(); err != nil {
		return row{}, err
	}
	if system == custody {
		return l.diskAlone(ctx, s)
	}
	kind := system
	if system == cis490 {
		kind = "receiver"
	}
	srv, err := l.serve(ctx, kind)
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	return l.client(ctx, s, srv.url, job{servers: srv.processes()}, "-announce="+fmt.Sprint(system == cis490))
}

// client runs the load's client, which is this program. The urls have commas between them.
func (l *lab) client(ctx context.Context, s loadShape, urls string, j job, more ...string) (row, error) {
	if err := l.episode(); err != nil {
		return row{}, err
	}
	return l.drive(ctx, s, j, append([]string{
		"load", "-url", urls, "-credentials", l.path("hosts"), "-src", l.run("src"),
		"-size", fmt.Sprint(s.size), "-conns", fmt.Sprint(s.conns), "-requests", fmt.Sprint(s.requests),
	}, more...)...)
}

// diskAlone does only what a receiver does on disk with a load. Here the client is the server.
func (l *lab) diskAlone(ctx context.Context, s loadShape) (row, error) {
	r, err := l.drive(ctx, s, job{}, custody, "-data", l.run("data"),
		"-at-once", fmt.Sprint(s.conns), "-n", fmt.Sprint(s.requests), "-size", fmt.Sprint(s.size))
	r.ServerCPU, r.ServerMiB, r.AllCPU = r.ClientCPU, r.ClientMiB, r.AllCPU+r.ClientCPU
	r.ClientCPU, r.ClientMiB = 0, 0
	return r, err
}

// drive runs one of the clients that this program is, too.
func (l *lab) drive(ctx context.Context, s loadShape, j job, args ...string) (row, error) {
	self, err := os.Executable()
	if err != nil {
		return row{}, err
	}
	var out strings.Builder
	j.client, j.disk = exec.CommandContext(ctx, self, args...), l.base
	j.client.Stdout = &out
	r, err := measure(j)
	if err != nil {
		return row{}, err
	}
	var told loadResult
	if err := json.Unmarshal([]byte(out.String()), &told); err != nil {
		return row{}, err
	}
	r.Wall, r.Requests, r.P50, r.P99 = told.Wall, told.Requests, told.P50, told.P99
	r.Input = int64(told.Requests) * int64(s.size)
	r.Stored, err = stored(l.run("data"))
	return r, err
}

// episode makes the episode whose archive a load sends, under other names: it
// packs to a little less than the smallest load.
func (l *lab) episode() error {
	w := work{"load", 1, 8, 46_000}
	return w.episode(l.run("src", w.id(0)), 0)
}
