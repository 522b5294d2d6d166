package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// pair is both daemons, with everything but settle at its default.
type pair struct {
	receiver *server
	shipper  *process
}

// pair starts the receiver on an empty disk. The shipper comes with daemon.
func (l *lab) pair(ctx context.Context) (*pair, error) {
	if err := l.fresh(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(l.run("src"), 0o755); err != nil {
		return nil, err
	}
	srv, err := l.serve(ctx, "receiver")
	if err != nil {
		return nil, err
	}
	if _, err = l.env(ctx, srv); err != nil { // it writes the shipper's configuration
		return nil, errors.Join(err, srv.stop())
	}
	return &pair{receiver: srv}, nil
}

func (l *lab) daemon(ctx context.Context, p *pair) error {
	started, err := l.spawn(l.run("shipper.log"), filepath.Join(l.bin, "shipper"), "--config", l.run("lab-host.toml"))
	if err != nil {
		return err
	}
	p.shipper = started
	return p.shipper.until(ctx, "its first words", func() bool {
		b, _ := os.ReadFile(p.shipper.log)
		return bytes.Contains(b, []byte("shipper started"))
	})
}

func (p *pair) stop() error {
	var err error
	if p.shipper != nil {
		err = p.shipper.stop()
	}
	return errors.Join(err, p.receiver.stop())
}

func (p *pair) cpu() (shipper, receiver time.Duration) {
	return treeCPU(p.shipper.pid()), treeCPU(p.receiver.pid())
}

// unreachable is how a pass ends if the receiver is away: all is packed, and
// waits.
const unreachable = 4

// shipper is one pass.
func (l *lab) shipper(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(l.bin, "shipper"), "--config", l.run("lab-host.toml"), "--once")
}

// tiny is an episode of which only the number matters.
func tiny(n int) work { return work{"T", n, 2, 0} }

// idle is what both daemons take while nothing happens, with many episodes
// retired. Wall is how long they were looked at.
func (l *lab) idle(ctx context.Context, o options) (r row, err error) {
	p, err := l.pair(ctx)
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	w := tiny(o.times(100_000, 100))
	say("shipping %d episodes, to be idle beside them", w.episodes)
	for i := range w.episodes {
		if err := w.episode(l.run("src", w.id(i)), i); err != nil {
			return row{}, err
		}
	}
	if out, err := l.shipper(ctx).CombinedOutput(); err != nil {
		return row{}, fmt.Errorf("shipper --once: %w: %s", err, out[max(0, len(out)-1000):])
	}
	if err := l.daemon(ctx, p); err != nil {
		return row{}, err
	}
	span := time.Duration(float64(30*time.Second) * max(o.scale, 0.1))
	if err := p.calm(ctx, span); err != nil {
		return row{}, err
	}
	before := look()
	s0, r0 := p.cpu()
	select {
	case <-ctx.Done():
		return row{}, ctx.Err()
	case <-time.After(span):
	}
	s1, r1 := p.cpu()
	after := look()
	return row{
		Episodes: w.episodes, Wall: after.at.Sub(before.at).Seconds(),
		ClientCPU: (s1 - s0).Seconds(), ServerCPU: (r1 - r0).Seconds(),
		Foreign:   after.foreignCores(before, s1-s0+r1-r0),
		ClientMiB: float64(resident(p.shipper.pid())) / 1024, ServerMiB: float64(resident(p.receiver.pid())) / 1024,
	}, nil
}

// calm waits until both have ended what they do after a start: the receiver
// reads once through what it has never read back. It gives up after a while, so
// that the figure tells of it.
func (p *pair) calm(ctx context.Context, span time.Duration) error {
	for deadline := time.Now().Add(20 * span); time.Now().Before(deadline); {
		s0, r0 := p.cpu()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(span / 10):
		}
		if s1, r1 := p.cpu(); s1-s0+r1-r0 < span/10/1000 {
			return nil
		}
	}
	return nil
}

// wakeUp is the time from the marker to the retired episode, of some episodes
// one after another. The row is durable a little before.
func (l *lab) wakeUp(ctx context.Context, o options) (r row, err error) {
	p, err := l.pair(ctx)
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := l.daemon(ctx, p); err != nil {
		return row{}, err
	}
	w := work{"W", o.times(50, 5), 8, 40 << 10}
	r = row{Episodes: w.episodes}
	before := look()
	s0, r0 := p.cpu()
	for i := range w.episodes {
		took, err := l.wake(ctx, w, i)
		if err != nil {
			return row{}, err
		}
		r.Values = append(r.Values, float64(took.Microseconds())/1000)
	}
	s1, r1 := p.cpu()
	after := look()
	r.Wall = after.at.Sub(before.at).Seconds()
	r.ClientCPU, r.ServerCPU = (s1 - s0).Seconds(), (r1 - r0).Seconds()
	r.Foreign = after.foreignCores(before, s1-s0+r1-r0)
	r.P50, r.P99 = r.Values.quantile(0.5), r.Values.quantile(1)
	return r, nil
}

func (l *lab) wake(ctx context.Context, w work, i int) (time.Duration, error) {
	dir := l.run("src", w.id(i))
	if err := w.draft(dir, i); err != nil {
		return 0, err
	}
	time.Sleep(20 * time.Millisecond) // the shipper has seen the folder, and waits for the marker
	begun := time.Now()
	if err := os.WriteFile(filepath.Join(dir, "done.marker"), nil, 0o644); err != nil {
		return 0, err
	}
	for {
		if _, err := os.Stat(l.run("shipped", w.id(i))); err == nil {
			return time.Since(begun), nil
		}
		if ctx.Err() != nil || time.Since(begun) > time.Minute {
			return 0, errors.Join(ctx.Err(), fmt.Errorf("%s was not shipped within a minute", w.id(i)))
		}
		time.Sleep(200 * time.Microsecond)
	}
}
