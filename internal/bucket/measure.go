package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// Requests are how many requests an endpoint has got.
type Requests struct {
	Endpoint string // its URL
	Answered int64  // also if the answer was that an object is missing, or exists
	Failed   int64  // without an answer, or with an error of the engine
}

// Requests returns the counts of each endpoint.
func (s *S3) Requests() []Requests {
	var all []Requests
	for _, e := range s.endpoints {
		all = append(all, Requests{e.url, e.answered.Load(), e.failed.Load()})
	}
	return all
}

// Skew returns by how much the clock of the engine is ahead, to about a second, and false before its
// first answer.
func (s *S3) Skew() (time.Duration, bool) {
	skew := s.endpoint().skew.Load()
	if skew == nil {
		return 0, false
	}
	return *skew, true
}

// record records the result of a request. One that its caller gave up counts for nothing.
func (e *endpoint) record(ctx context.Context, x exchange, err error) {
	if x.server != "" {
		e.server.Store(&x.server)
	}
	if !x.serverTime.IsZero() {
		// The engine has cut its time to seconds.
		skew := time.Until(x.serverTime.Add(time.Second / 2)).Round(time.Second)
		e.skew.Store(&skew)
	}
	_, fault := errors.AsType[*sourceError](err)
	response, isAnswer := errors.AsType[minio.ErrorResponse](err)
	switch {
	case err == nil || isAnswer && (response.StatusCode == 404 || response.StatusCode == 412):
		e.answered.Add(1)
	case fault || ctx.Err() != nil:
	default:
		e.failed.Add(1)
	}
}

// latencySize is the size of the objects of [MeasureLatency].
const latencySize = 4 << 10

// MeasureLatency stores and reads a small object several times, and returns how long each took, sorted.
// It leaves nothing: what it does not remove, a later probe does.
func MeasureLatency(ctx context.Context, b Bucket, rounds int) (puts, gets []time.Duration, err error) {
	name := probeDir + strings.ToLower(rand.Text()) + "/latency"
	defer func() { err = errors.Join(err, b.Remove(context.WithoutCancel(ctx), name)) }()
	content := make([]byte, latencySize)
	for range rounds {
		_, _ = rand.Read(content) // it never fails
		begun := time.Now()
		if err := b.Put(ctx, name, bytes.NewReader(content), latencySize, digestOf(content)); err != nil {
			return nil, nil, err
		}
		puts, begun = append(puts, time.Since(begun)), time.Now()
		r, _, err := b.Open(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		got, err := io.ReadAll(io.LimitReader(r, latencySize+1))
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, nil, err
		}
		if !bytes.Equal(got, content) {
			return nil, nil, errors.New("the object store returned other bytes than it has just stored")
		}
		gets = append(gets, time.Since(begun))
	}
	slices.Sort(puts)
	slices.Sort(gets)
	return puts, gets, nil
}
