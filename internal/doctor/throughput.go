package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cis490/internal/config"
	"cis490/internal/wire"
)

// How [CheckThroughput] measures.
const (
	firstProbe      = 256 << 10
	secondProbe     = 8 << 20
	fastProbe       = time.Second // a first probe that is faster says too little
	throughputLimit = 20 * time.Second
	slowRate        = 16 << 10 // bytes per second
)

// CheckThroughput measures how fast the receiver accepts bytes, which it discards.
func CheckThroughput(ctx context.Context, probe func(ctx context.Context, size int64) (time.Duration, error)) Finding {
	const check = "throughput"
	limited, cancel := context.WithTimeout(ctx, throughputLimit)
	defer cancel()
	size := int64(firstProbe)
	elapsed, err := probe(limited, size)
	if err == nil && elapsed < fastProbe {
		if longer, lerr := probe(limited, secondProbe); lerr == nil {
			size, elapsed = secondProbe, longer
		} else if !errors.Is(limited.Err(), context.DeadlineExceeded) {
			err = lerr
		}
	}
	if ctx.Err() != nil {
		return Skippedf(check, "interrupted")
	}
	if limited.Err() != nil && err != nil { // not even the first probe has ended
		return markNetwork(Failedf(check, "use a faster link, or find out where packets are lost; if the receiver is busy, run this again",
			"fewer than %s in %v to the receiver", config.Bytes(firstProbe), throughputLimit))
	}
	return judgeThroughput(size, elapsed, err)
}

func judgeThroughput(size int64, elapsed time.Duration, err error) Finding {
	const check = "throughput"
	code, refused := errors.AsType[wire.Code](err)
	switch {
	case refused && code == wire.NotFound:
		return Skippedf(check, "the receiver is too old to measure it")
	case refused && (code == wire.Busy || code == wire.HostBusy || code == wire.Draining):
		return Skippedf(check, "%v", err)
	case refused && code == wire.Stalled:
		return FromNetworkError(check, err, "use a faster link, or lower limits.min_rate of the receiver: it ends uploads that are slower")
	case err != nil:
		return failedByNetwork(check, err)
	}
	rate := int64(float64(size) / max(elapsed, time.Microsecond).Seconds())
	fact := fmt.Sprintf("%s/s to the receiver (%s in %s)", config.Bytes(rate), config.Bytes(size), formatTime(elapsed))
	if rate < slowRate {
		return markNetwork(Warningf(check, "use a faster link, or find out where packets are lost", "%s", fact))
	}
	return OKf(check, "%s", fact)
}
