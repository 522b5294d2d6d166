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
		{"64 × 4 MiB", 64, o.times(256, 64), 4 << 20, 14_200_000},
		{"8 × 17 kB", 8, o.times(6000, 64), 17_000, 46_000},
		{"64 × 17 kB", 64, o.times(6000, 64), 17_000, 46_000},
	}
}

type loadShape struct {
	name     string
	conns    int
	requests int
	size     int
	episode  int64 // bytes of an episode whose archive is a little smaller than size
}

// load runs one load against one receiver.
func (l *lab) load(ctx context.Context, s loadShape, system string) (r row, err error) {
	body := l.path("work", strings.ReplaceAll(s.name, " ", "")+".body")
	if err := l.body(ctx, s, body); err != nil {
		return row{}, err
	}
	for i := range loadHosts {
		if _, err := l.host(ctx, hostOf(i)); err != nil {
			return row{}, err
		}
	}
	if err := l.fresh(); err != nil {
		return row{}, err
	}
	kind := system
	if system == ours {
		kind = "receiver"
	}
	srv, err := l.serve(ctx, kind)
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	return l.client(ctx, s, srv, body)
}

// client runs the load's client, which is this program.
func (l *lab) client(ctx context.Context, s loadShape, srv *server, body string) (row, error) {
	self, err := os.Executable()
	if err != nil {
		return row{}, err
	}
	var out strings.Builder
	cmd := exec.CommandContext(ctx, self, "load", "-url", srv.url, "-papers", l.path("hosts"), "-body", body,
		"-conns", fmt.Sprint(s.conns), "-requests", fmt.Sprint(s.requests))
	cmd.Stdout = &out
	r, err := measure(job{client: cmd, server: srv.process, disk: l.base})
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

// body makes what a load sends: an archive of our shipper, for another packer's
// window costs the receiver more when it looks for meta.json, filled up to the
// size with a frame that every zstd skips.
func (l *lab) body(ctx context.Context, s loadShape, path string) error {
	if info, err := os.Stat(path); err == nil && info.Size() == int64(s.size) {
		return nil
	}
	p, err := l.pair(ctx)
	if err != nil {
		return err
	}
	if err := p.stop(); err != nil { // so that the archive stays in the outbox
		return err
	}
	w := work{"load", 1, 8, s.episode}
	if err := w.episode(l.run("src", w.id(0)), 0); err != nil {
		return err
	}
	packs := l.shipper(ctx)
	if out, err := packs.CombinedOutput(); packs.ProcessState.ExitCode() != unreachable {
		return fmt.Errorf("pack the body of a load: %w: %s", err, out)
	}
	packed, err := os.ReadFile(l.run("outbox", w.id(0)+".tar.zst"))
	if err != nil {
		return err
	}
	gap := s.size - len(packed) - 8
	if gap < 0 {
		return fmt.Errorf("the body of load %s has %d bytes: take a smaller episode", s.name, len(packed))
	}
	frame := append([]byte{0x50, 0x2a, 0x4d, 0x18, byte(gap), byte(gap >> 8), byte(gap >> 16), byte(gap >> 24)}, make([]byte, gap)...)
	return os.WriteFile(path, append(packed, frame...), 0o644)
}
