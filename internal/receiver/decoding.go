package receiver

import (
	"context"
	"io"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/store"
)

// perByte is how much may come out of a byte of an archive at the price of reading
// it. Zeros pack to a thirty-thousandth: an archive of some megabytes can keep a core
// busy for minutes.
const perByte = 16

// decoding is one reading of an archive, from the disk to the last byte that comes
// out. A pacer, if there is one, slows it down.
type decoding struct {
	ctx  context.Context
	pace *pacer
	in   int64 // read, or paid for
	out  int64 // decoded
}

func newDecoding(ctx context.Context, pace *pacer) *decoding { return &decoding{ctx: ctx, pace: pace} }

func (d *decoding) reading() store.Reading {
	return store.Reading{
		Pace:  func(r io.Reader) io.Reader { return &paced{d, r} },
		Check: func(r io.Reader) (digest.Digest, error) { return archive.ContentDigest(r, d) },
	}
}

// Write takes what was decoded.
func (d *decoding) Write(b []byte) (int, error) {
	d.out += int64(len(b))
	more := d.out/perByte - d.in
	if more <= 0 {
		return len(b), d.ctx.Err()
	}
	return len(b), d.pay(int(more))
}

// pay waits for the time that n bytes take.
func (d *decoding) pay(n int) error {
	d.in += int64(n)
	if d.pace == nil {
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
