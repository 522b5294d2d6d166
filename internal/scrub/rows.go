package scrub

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
)

// findMissing looks for the archive of each row. It holds one row in memory.
func (p *scrubPass) findMissing(ctx context.Context) error {
	in, err := p.data.Open(p.indexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	end, err := in.Stat()
	if err != nil {
		return err
	}
	n := 0
	// Rows that are appended from now on are left to the next pass, so that this one ends
	// however many there are.
	for row, err := range index.ReadRows(io.LimitReader(in, end.Size())) {
		if _, bad := errors.AsType[*index.LineError](err); bad {
			continue // 'receiver index verify' reports it
		}
		if err != nil {
			return err
		}
		n++
		if n%256 == 0 {
			if err := p.budget.waitBytes(ctx, seekCost); err != nil {
				return err
			}
		}
		if p.onlyHost != "" && row.Key.Host != p.onlyHost || row.Repaired {
			continue // a repaired key has an earlier row
		}
		if err := p.checkRow(ctx, row); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// checkRow looks for the archive of a row. If there is none it looks again with the key
// locked, because an archive that is being repaired is absent for a moment. An archive that
// was stored by an older version, or copied, does not say that it has a row: that is
// recorded, so that no search of the index is needed for it.
func (p *scrubPass) checkRow(ctx context.Context, row index.Row) error {
	key := row.Key
	o, err := p.verifier.Store.Stat(key)
	needsMark := func() bool {
		return err == nil && p.markIndexed != nil && !o.Indexed && !o.InFlight && o.Digest == row.SHA256 && o.Size == row.Size
	}
	if needsMark() {
		if err := p.budget.waitBytes(ctx, seekCost); err != nil {
			return err
		}
	}
	if needsMark() || errors.Is(err, fs.ErrNotExist) {
		unlock := p.verifier.lockKey(key)
		defer unlock()
		if o, err = p.verifier.Store.Stat(key); needsMark() {
			o.ReceivedAt = row.ReceivedAt
			err = p.markIndexed(o)
		}
	}
	if errors.Is(err, durable.ErrFault) || durable.IsShortage(err) {
		return err
	}
	_, stray := errors.AsType[*store.StrayError](err) // a link or a directory, which listing the host has skipped
	if stray || errors.Is(err, fs.ErrNotExist) {
		p.reportMissing(key, err, stray)
	}
	return nil
}

// reportMissing reports a row whose archive is not in the store, unless this pass has
// quarantined and counted it.
func (p *scrubPass) reportMissing(key episode.Key, err error, stray bool) {
	if p.quarantined.has(key) {
		return
	}
	detail := p.verifier.Store.Path(key) + " has a row and is not there"
	if stray {
		detail = err.Error() + ", and has a row"
	}
	p.onFinding(p.progress.AddMissing(key, detail))
}

// AddMissing counts a row without an archive, and returns the finding.
func (p *Progress) AddMissing(key episode.Key, detail string) Finding {
	p.Missing++
	return Finding{Finding: "missing", Host: key.Host, Episode: key.Name, Detail: detail}
}
