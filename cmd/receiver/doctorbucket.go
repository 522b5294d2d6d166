package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/cli"
	"cis490/internal/doctor"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
)

// How doctor judges an object store. An engine refuses requests from a clock that differs by a quarter of
// an hour. A probe is made at each start, at most once a day.
const (
	engineTimeout  = 20 * time.Second
	maxSkew        = 5 * time.Second
	brokenSkew     = 10 * time.Minute
	latencyRounds  = 5
	slowRequest    = 200 * time.Millisecond // median
	brokenRequest  = 5 * time.Second        // at most
	oldProbe       = 90 * 24 * time.Hour
	examineObjects = "see the log and the load of the object store, and the way to it"
)

// examineBucket checks each endpoint of the object store, and what is known of it.
func (d *receiverDoctor) examineBucket() {
	in, err := bucket.Open(d.cfg.Store.S3)
	if err != nil {
		d.AddError("object store", err, "correct [store.s3] in the configuration")
		return
	}
	d.Check("object store", func(ctx context.Context) []doctor.Finding {
		ctx, cancel := context.WithTimeout(ctx, engineTimeout*time.Duration(len(in.Endpoints())))
		defer cancel()
		var all []doctor.Finding
		for _, e := range in.Endpoints() {
			all = append(all, examineEndpoint(ctx, e)...)
		}
		return all
	})
	d.CheckOne("probe", func(context.Context) doctor.Finding { return d.examineProbe(time.Now()) })
}

// examineEndpoint checks that an endpoint answers, knows the keys, has a clock that is right, and is fast
// enough.
func examineEndpoint(ctx context.Context, e bucket.Endpoint) []doctor.Finding {
	begun := time.Now()
	id, err := s3backend.ReadStoreID(ctx, e.Bucket)
	took := time.Since(begun)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case missing:
		id = "no store yet: the first start of a receiver creates it"
	case err != nil:
		return []doctor.Finding{doctor.FromError("object store", fmt.Errorf("%s: %w", e.Name, err), "correct [store.s3], then run 'receiver probe'")}
	default:
		id = "the store " + id
	}
	server := ""
	if s, ok := e.Bucket.(interface{ Server() string }); ok {
		server = s.Server()
	}
	all := []doctor.Finding{doctor.OKf("object store", "%s answers in %s and takes the access key; %s; %s",
		e.Name, took.Round(time.Millisecond), cmp.Or(server, "it does not say what it is"), id)}
	if s, ok := e.Bucket.(interface{ Skew() (time.Duration, bool) }); ok {
		skew, known := s.Skew()
		all = append(all, judgeSkew(e.Name, skew, known))
	}
	puts, gets, err := bucket.MeasureLatency(ctx, e.Bucket, latencyRounds)
	return append(all, judgeLatency(e.Name, puts, gets, err))
}

func judgeSkew(endpoint string, skew time.Duration, known bool) doctor.Finding {
	const check, remedy = "object store clock", "synchronize both clocks by NTP: it refuses requests from a clock that is a quarter of an hour off"
	fact := fmt.Sprintf("the clock of %s is %s ahead of this one, to a second", endpoint, skew)
	if skew < 0 {
		fact = fmt.Sprintf("the clock of %s is %s behind this one, to a second", endpoint, -skew)
	}
	switch {
	case !known:
		return doctor.Skippedf(check, "%s does not say its time", endpoint)
	case skew.Abs() >= brokenSkew:
		return doctor.Failedf(check, remedy, "%s", fact)
	case skew.Abs() >= maxSkew:
		return doctor.Warningf(check, remedy, "%s", fact)
	}
	return doctor.OKf(check, "%s", fact)
}

// judgeLatency judges how long small objects take. puts and gets are sorted.
func judgeLatency(endpoint string, puts, gets []time.Duration, err error) doctor.Finding {
	const check = "latency"
	if f, is := doctor.CheckCanceled(check, err); is {
		return f
	}
	if err != nil || len(puts) == 0 || len(gets) == 0 {
		return doctor.FromError(check, fmt.Errorf("%s: %w", endpoint, err), "run 'receiver probe'")
	}
	put, longest := puts[len(puts)/2], puts[len(puts)-1]
	fact := fmt.Sprintf("%s stores 4 KiB in %s, at most %s, and returns them in %s", endpoint,
		put.Round(time.Millisecond/10), longest.Round(time.Millisecond/10), gets[len(gets)/2].Round(time.Millisecond/10))
	switch {
	case longest >= brokenRequest:
		return doctor.Failedf(check, examineObjects, "%s", fact)
	case put >= slowRequest:
		return doctor.Warningf(check, examineObjects+": an episode takes four such requests", "%s", fact)
	}
	return doctor.OKf(check, "%s", fact)
}

// examineProbe reports when the object store last passed the probe here.
func (d *receiverDoctor) examineProbe(now time.Time) doctor.Finding {
	const check, remedy = "probe", "run 'receiver probe'"
	at, servers, err := receiver.LastProbe(d.cfg)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return doctor.Warningf(check, remedy, "no receiver has started here with this object store, so it was not probed")
	case err != nil:
		return doctor.Skippedf(check, "%v", err)
	case now.Sub(at) > oldProbe:
		return doctor.Warningf(check, remedy, "the object store (%s) last passed the probe %s: it may have been upgraded since", strings.Join(servers, " "), cli.FormatAgo(at, now))
	}
	return doctor.OKf(check, "the object store (%s) passed the probe %s", strings.Join(servers, " "), cli.FormatAgo(at, now))
}
