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

// decodeMeter reads one archive from the disk and decodes it.
type decodeMeter struct {
	ctx    context.Context
	budget *readBudget // nil: a host waits for the result
	size   int64       // of the archive
	// noWait charges the budget without waiting: uploads of the key wait for the result.
	noWait bool
	// confirming reports that an earlier reading could not decode these bytes either.
	confirming bool
	progress   func(int)

	charged    int64 // bytes read, or charged for decoding
	decoded    int64 // bytes
	remembered bool  // the result is stored in an attribute of the file
}

func (d *decodeMeter) readingOptions() store.Reading {
	return store.Reading{
		Pace:     func(r io.Reader) io.Reader { return &chargedReader{d, r} },
		Check:    func(r io.Reader) (digest.Digest, error) { return archive.ContentDigest(r, d) },
		Remember: d.rememberResult,
		Progress: d.progress,
	}
}

// rememberResult reports whether the result is to be stored, so that an expensive archive is not
// decoded again. A decoding error must have occurred twice: cables and memory fail too.
func (d *decodeMeter) rememberResult(unfit error) (decoded int64, ok bool) {
	d.remembered = d.isExpansive() && (unfit == nil || d.confirming)
	return d.decoded, d.remembered
}

func (d *decodeMeter) isExpansive() bool { return d.decoded > archive.ExpansionLimit(d.size) }

// Write receives decoded bytes. While a host waits, an expensive archive is not decoded to
// its end: the scrub does that once.
func (d *decodeMeter) Write(b []byte) (int, error) {
	d.decoded += int64(len(b))
	if d.budget == nil && d.isExpansive() {
		return 0, fmt.Errorf("%w: %w", store.ErrUndecided, archive.ErrExpands)
	}
	due := d.decoded/freeExpansionRatio - d.charged
	if due <= 0 {
		return len(b), d.ctx.Err()
	}
	return len(b), d.chargeBytes(int(due))
}

// chargeBytes charges n bytes to the budget, and waits for them unless noWait is set.
func (d *decodeMeter) chargeBytes(n int) error {
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

// chargedReader charges to the budget what is read from the disk.
type chargedReader struct {
	d *decodeMeter
	r io.Reader
}

func (c *chargedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if cerr := c.d.chargeBytes(n); cerr != nil {
		return 0, cerr
	}
	return n, err
}
