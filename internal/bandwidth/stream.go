package bandwidth

import (
	"context"
	"io"
)

// LimitStream is [Limiter.LimitReader] for a stream.
func (l *Limiter) LimitStream(ctx context.Context, r io.Reader) io.Reader {
	return limitedStream{r, ctx, l}
}

type limitedStream struct {
	r   io.Reader
	ctx context.Context // of the request that reads
	*Limiter
}

func (s limitedStream) Read(p []byte) (int, error) {
	p = p[:min(len(p), maxBurst)]
	if err := s.waitBytes(s.ctx, len(p)); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}
