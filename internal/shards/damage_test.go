package shards

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
	"cis490/internal/scrub"
)

// complete reads the remaining shards of a pass.
func complete(t *testing.T, p *Pass) *scrub.Progress {
	t.Helper()
	for {
		s, more, err := p.Next(t.Context())
		fixture.Must(t, err)
		if !more {
			return p.Ended()
		}
		fixture.Must(t, p.Finish(t.Context(), s, scrub.Progress{Objects: 1}))
	}
}

// Whatever object of a pass is damaged or lost, a pass ends with all shards, within a day.
func TestADamagedObjectDoesNotEndTheScrub(t *testing.T) {
	for name, content := range map[string][]byte{"damaged": []byte(`{"started":`), "lost": nil} {
		for _, kind := range []string{passes, claims, results, progress} {
			t.Run(name+" "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					in := new(buckettest.Memory)
					p := join(t, in, 3)
					fixture.Must(t, p.Finish(t.Context(), next(t, p), scrub.Progress{Objects: 1}))
					object := objectName(kind, 1)
					if kind == claims || kind == results {
						object = p.shardName(kind, 0)
					}
					in.Tamper(object, content, "")
					begun, again := time.Now(), join(t, in, 3) // as after a restart
					if got := complete(t, again); got == nil || got.Objects != 3 || time.Since(begun) > time.Hour {
						t.Errorf("got %+v after %v, want three objects", got, time.Since(begun))
					}
				})
			})
		}
		t.Run(name+" "+ended, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := new(buckettest.Memory)
				complete(t, join(t, in, 3))
				in.Tamper(objectName(ended, 1), content, "")
				if got := complete(t, join(t, in, 3)); got == nil || got.Objects != 3 {
					t.Errorf("got %+v, want three objects", got)
				}
			})
		})
	}
}

// A list that names a pass that is not there ends in a new pass, and for people in an error.
func TestAListOfAPassThatIsNotThere(t *testing.T) {
	in := new(buckettest.Memory)
	fixture.Must(t, create(t.Context(), in, objectName(passes, 7), start{}))
	if _, err := Status(t.Context(), ghostBucket{in}); !errors.Is(err, errUnusable) {
		t.Errorf("got %v, want errUnusable", err)
	}
}

// A receiver whose clock was wrong does not keep the others from beginning a pass.
func TestAPassOfTheFutureDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			ahead time.Duration
			want  int64 // the pass that is joined
		}{{365 * day, 2}, {day, 2}, {time.Second, 1}, {-time.Hour, 1}, {-day, 2}} {
			in := new(buckettest.Memory)
			begun := time.Now().Add(tt.ahead)
			fixture.Must(t, create(t.Context(), in, objectName(passes, 1), start{Started: begun, Batches: 1, Shards: 1}))
			fixture.Must(t, create(t.Context(), in, objectName(ended, 1), scrub.Progress{Started: begun, Ended: begun}))
			if p := join(t, in, 1); p.number != tt.want {
				t.Errorf("%v ahead: got the pass %d, want %d", tt.ahead, p.number, tt.want)
			}
		}
	})
}

// ghostBucket lists objects that it does not return.
type ghostBucket struct{ *buckettest.Memory }

func (ghostBucket) Open(context.Context, string) (io.ReadCloser, bucket.Info, error) {
	return nil, bucket.Info{}, fs.ErrNotExist
}
