package shipper

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/settling"
	"cis490/internal/source"
)

// scanMore scans the next page of the directories and enqueues its episodes.
func (d *dispatcher) scanMore(now time.Time) error {
	if err := d.dirs.CheckPaths(); err != nil {
		return err
	}
	if d.scanCursor == "" && (d.cfg.OutboxMax > 0 || d.Status != nil) {
		if err := d.out.MeasureSize(); err != nil {
			return err
		}
	}
	page, err := backlog.ReadPage(d.dirs, d.scanCursor, d.reportUnshippable)
	if err != nil {
		return err
	}
	d.scanCursor = page.Cursor
	found := make([]candidate, 0, len(page.Episodes))
	for _, e := range page.Episodes {
		found = append(found, newCandidate(e))
	}
	slices.SortFunc(found, compareAge)
	for _, c := range found {
		if err := d.enqueueCandidate(c, now); err != nil {
			return err
		}
	}
	if page.IsLast {
		d.finishScan(now)
	}
	return nil
}

func (d *dispatcher) finishScan(now time.Time) {
	d.updateLowSpaceFile(d.packing.isShort(d.belowMinFree(), d.outboxNearLimit()))
	d.scanDone, d.nextScan = true, now.Add(d.cfg.ScanInterval.Std())
	if d.once {
		d.settleDeadline = time.Now().Add(settling.MaxWait(d.cfg.Settle.Std()))
	}
	d.holdsRead, d.held = true, d.heldSeen
	d.reporting.changed = d.reporting.changed || d.reporting.exists // the report confirms the state
	d.notifyStatus()
}

// needsScan reports whether another page may be scanned.
func (d *dispatcher) needsScan() bool {
	return !d.scanDone && d.toPack.small.size() == 0 && d.toPack.large.size() < backlog.PageSize && d.toSend.size() < backlog.PageSize
}

// restartScan starts a scan from the first name.
func (d *dispatcher) restartScan() {
	d.scanDone, d.scanCursor, d.heldSeen = false, "", 0
	d.packing = d.packing.afterScanStart()
}

// reportUnshippable logs an entry that never ships, or that cannot even be held because it has no
// valid name.
func (d *dispatcher) reportUnshippable(err error) {
	if stray, ok := errors.AsType[*source.StrayError](err); ok {
		d.logStray(stray)
		return
	}
	d.count(func(t *Tally, _ *Outcomes) { t.Scanned++; t.Held++ })
	d.heldSeen++
	hint := "rename it or fix its permissions"
	if durable.IsReadFailure(err) {
		hint = "see the kernel's log, then fix the disk or the mount"
	}
	d.log.Error("cannot ship an episode", "err", err, "hint", hint)
}

// logStray logs, once, an entry that never ships. The level depends on whether it seems to be meant
// as an episode.
func (d *dispatcher) logStray(s *source.StrayError) {
	if d.loggedStrays[s.Entry] || len(d.loggedStrays) >= backlog.MaxStrays {
		return
	}
	d.loggedStrays[s.Entry] = true
	level := slog.LevelDebug
	switch {
	case s.Marked:
		level = slog.LevelWarn
	case s.Link:
		level = slog.LevelInfo
	}
	d.log.Log(context.Background(), level, "entry never ships", "entry", s.Entry, "reason", s.Reason)
}

// enqueueCandidate puts an episode into the queue of its stage.
func (d *dispatcher) enqueueCandidate(c candidate, now time.Time) error {
	if c.Stage != backlog.Held && d.backoffs[c.Name].held {
		d.clearBackoff(c.Name) // an operator has released it
	}
	if c.Stage == backlog.Held {
		d.heldSeen++
	}
	if _, at := d.inFlight[c.Name]; at || now.Before(d.backoffs[c.Name].retryAt) && c.Stage != backlog.Held {
		return nil
	}
	switch c.Stage {
	case backlog.Nothing:
		return nil
	case backlog.Stale:
		if err := d.out.RemoveHold(c.Name); errors.Is(err, durable.ErrFault) {
			return err
		}
		return nil // the next scan finds it again
	}
	d.count(func(t *Tally, _ *Outcomes) { t.Scanned++ })
	switch c.Stage {
	case backlog.Held:
		d.enqueueHeld(c, now)
	case backlog.Pack:
		d.enqueuePack(c, now)
	case backlog.Send:
		d.enqueueSend(c)
	}
	return nil
}

func (d *dispatcher) enqueuePack(c candidate, now time.Time) {
	if d.packing == packingPaused {
		d.countSkipped(c)
		return
	}
	if until, settles := c.EarliestSettled(d.cfg.Settle.Std(), now); settles {
		d.awaitSettled(c, until, now)
		return
	}
	d.toPack.add(c)
	d.inFlight[c.Name] = c
}

// enqueueSend queues an episode for sending. While the link is not up, the outbox is the queue: it
// may hold more names than memory should.
func (d *dispatcher) enqueueSend(c candidate) {
	if d.link.state == linkDown || d.link.state == linkSuspect && !d.once {
		d.countSkipped(c)
		return
	}
	d.toSend.add(c)
	d.inFlight[c.Name] = c
	d.countToSend(1, c)
}

// dropQueues empties queues. The names stay in their directories.
func (d *dispatcher) dropQueues(queues ...*queue) {
	for _, q := range queues {
		for _, c := range q.items {
			d.countSkipped(c)
			delete(d.inFlight, c.Name)
			if c.Stage == backlog.Send {
				d.countToSend(-1, c)
			}
		}
		q.items = nil
	}
}

func (d *dispatcher) countTransient(n int) { d.count(func(t *Tally, _ *Outcomes) { t.Transient += n }) }

// countSkipped counts an episode that is not tried now.
func (d *dispatcher) countSkipped(c candidate) {
	if c.held {
		d.count(func(t *Tally, _ *Outcomes) { t.Held++ })
		return
	}
	d.countTransient(1)
}

// enqueueNow enqueues one episode between scans, or starts a scan if name is empty.
func (d *dispatcher) enqueueNow(name episode.Name, now time.Time) error {
	if name == "" {
		d.restartScan()
		return nil
	}
	e, err := backlog.Inspect(d.dirs, name)
	c := newCandidate(e)
	switch {
	case err != nil:
		return nil // the next scan reports it
	case c.Stage == backlog.Held && d.backoffs[name].held:
		d.retryHeld(c, now)
		return nil
	case c.Stage != backlog.Pack && c.Stage != backlog.Send:
		d.clearBackoff(name)
		return nil
	}
	return d.enqueueCandidate(c, now)
}
