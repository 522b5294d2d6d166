package scrub

import (
	"context"
	"fmt"
	"io"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/store"
)

// freeExpansionRatio is the number of decoded bytes per compressed byte that are not
// charged to the budget. Zeros compress to a thirty-thousandth: decoding an archive of a
// few megabytes can keep a core busy for minutes.
const freeExpansionRatio = 16

// Meter charges one reading of an archive to a [Budget]: what is read, and what it decodes to.
// [Meter.Start] must be called first.
type Meter struct {
	ctx    context.Context
	budget *Budget // nil: a host waits for the result
	size   int64   // of the archive
	// noWait charges the budget without waiting: uploads of the key wait for the result.
	noWait bool
	// confirming reports that an earlier reading could not decode these bytes either.
	confirming bool
	progress   func(int)

	charged    int64 // bytes read, or charged for decoding
	decoded    int64 // bytes
	remembered bool  // the result is stored in an attribute of the file
}

// Start starts the reading of an archive of size bytes within b. Without b a host waits for the result.
// progress is called with the number of bytes of each read, unless it is nil.
func (d *Meter) Start(ctx context.Context, b *Budget, size int64, progress func(int)) {
	d.ctx, d.budget, d.size, d.progress = ctx, b, size, progress
}

// Pace returns a reader of the archive that waits until its bytes may be read.
func (d *Meter) Pace(r io.Reader) io.Reader { return &chargedReader{d, r} }

// Decoded returns the number of decoded bytes.
func (d *Meter) Decoded() int64 { return d.decoded }

func (d *Meter) readingOptions() store.Reading {
	return store.Reading{
		Pace:     d.Pace,
		Check:    func(r io.Reader) (digest.Digest, error) { return archive.ContentDigest(r, d) },
		Remember: d.rememberResult,
		Progress: d.progress,
	}
}

// rememberResult reports whether the result is to be stored, so that an expensive archive is not
// decoded again. A decoding error must have occurred twice: cables and memory fail too.
func (d *Meter) rememberResult(unfit error) (decoded int64, ok bool) {
	d.remembered = d.IsExpansive() && (unfit == nil || d.confirming)
	return d.decoded, d.remembered
}

// IsExpansive reports whether the archive decodes to more than [MaxRatio] times its size.
func (d *Meter) IsExpansive() bool { return d.decoded > archive.ExpansionLimit(d.size) }

// Write receives decoded bytes. While a host waits, an expensive archive is not decoded to
// its end: the scrub does that once.
func (d *Meter) Write(b []byte) (int, error) {
	d.decoded += int64(len(b))
	if d.budget == nil && d.IsExpansive() {
		return 0, fmt.Errorf("%w: %w", store.ErrUndecided, archive.ErrExpands)
	}
	due := d.decoded/freeExpansionRatio - d.charged
	if due <= 0 {
		return len(b), d.ctx.Err()
	}
	return len(b), d.chargeBytes(int(due))
}

// chargeBytes charges n bytes to the budget, and waits for them unless noWait is set.
func (d *Meter) chargeBytes(n int) error {
	d.charged += int64(n)
	switch {
	case d.budget == nil:
		return d.ctx.Err()
	case d.noWait:
		d.budget.chargeBytes(n)
		return d.ctx.Err()
	}
	return d.budget.waitBytes(d.ctx, n)
}

// chargedReader charges to the budget what is read of an archive.
type chargedReader struct {
	d *Meter
	r io.Reader
}

func (c *chargedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if cerr := c.d.chargeBytes(n); cerr != nil {
		return 0, cerr
	}
	return n, err
}
