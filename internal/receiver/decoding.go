package receiver

import (
	"context"
	"fmt"
	"io"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/store"
)

// perByte is how much may come out of a byte of an archive at the price of reading
// it. Zeros pack to a thirty-thousandth: an archive of some megabytes can keep a core
// busy for minutes.
const perByte = 16

// MaxRatio is how many times its size an archive may decode to and still be decoded by
// each scrub.
const MaxRatio = archive.MaxRatio

// decoding is one reading of an archive, from the disk to the last byte that comes
// out.
type decoding struct {
	ctx  context.Context
	pace *pacer // pays for it; nil: a host waits for it
	size int64  // of the archive
	// hurry pays without waiting: uploads of the key wait for the end of the reading.
	hurry bool
	// sure says that an earlier reading did not decode these bytes either.
	sure     bool
	progress func(int)

	in         int64 // read, or paid for
	out        int64 // decoded
	remembered bool  // what it came to was noted at the file
}

func (d *decoding) reading() store.Reading {
	return store.Reading{
		Pace:     func(r io.Reader) io.Reader { return &paced{d, r} },
		Check:    func(r io.Reader) (digest.Digest, error) { return archive.ContentDigest(r, d) },
		Remember: d.remember,
		Progress: d.progress,
	}
}

// remember has an expensive archive decoded no more. An error is believed the second
// time: cables and memory make mistakes too.
func (d *decoding) remember(unfit error) (decoded int64, ok bool) {
	d.remembered = d.expands() && (unfit == nil || d.sure)
	return d.out, d.remembered
}

func (d *decoding) expands() bool { return d.out > archive.ExpansionLimit(d.size) }

// Write takes what was decoded. An expensive archive is not decoded while a host waits:
// the scrub does that once.
func (d *decoding) Write(b []byte) (int, error) {
	d.out += int64(len(b))
	if d.pace == nil && d.expands() {
		return 0, fmt.Errorf("%w: %w", store.ErrUndecided, archive.ErrExpands)
	}
	more := d.out/perByte - d.in
	if more <= 0 {
		return len(b), d.ctx.Err()
	}
	return len(b), d.pay(int(more))
}

// pay waits for the time that n bytes take.
func (d *decoding) pay(n int) error {
	d.in += int64(n)
	switch {
	case d.pace == nil:
		return d.ctx.Err()
	case d.hurry:
		d.pace.charge(n)
		return d.ctx.Err()
	}
	return d.pace.wait(d.ctx, n)
}

// paced is the source of a decoding.
type paced struct {
	d *decoding
	r io.Reader
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if perr := p.d.pay(n); perr != nil {
		return 0, perr
	}
	return n, err
}
