package bucket_test

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
)

func TestRequestsAreCountedByEndpoint(t *testing.T) {
	c := buckettest.Versitygw(t)
	c.Endpoints = append(c.Endpoints, "http://127.0.0.1:1") // nothing listens there
	in, err := bucket.Open(c)
	fixture.Must(t, err)
	if _, _, err := in.Open(t.Context(), "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want fs.ErrNotExist", err)
	}
	if skew, known := in.Skew(); !known || skew.Abs() > 2*time.Second {
		t.Errorf("skew: got %v, %t, want about none", skew, known)
	}
	dead := in.Endpoints()[1].Bucket
	if _, err := dead.Stat(t.Context(), "missing"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of an endpoint that is down: got %v", err)
	}
	got := in.Requests()
	if len(got) != 2 || got[0].Answered != 1 || got[0].Failed != 0 || got[1].Answered != 0 {
		t.Errorf("requests: got %+v, want one answer", got)
	}
	if got := dead.(*bucket.S3).Requests(); got[0].Failed != 1 || got[0].Answered != 0 {
		t.Errorf("requests of the endpoint that is down: got %+v, want one failure", got)
	}
}

func TestMeasureLatencyLeavesNothing(t *testing.T) {
	in := new(buckettest.Memory)
	puts, gets, err := bucket.MeasureLatency(t.Context(), in, 3)
	if err != nil || len(puts) != 3 || len(gets) != 3 || len(in.Names()) != 0 {
		t.Errorf("got %v, %v, %v, and the objects %q, want three of each and nothing left", puts, gets, err, in.Names())
	}
	in.Fault = func(op, _ string) buckettest.Fault {
		if op == buckettest.OpOpen {
			return buckettest.LostBefore
		}
		return buckettest.None
	}
	if _, _, err := bucket.MeasureLatency(t.Context(), in, 3); !errors.Is(err, buckettest.ErrLost) || len(in.Names()) != 0 {
		t.Errorf("when a reading fails: got %v, and the objects %q", err, in.Names())
	}
}
