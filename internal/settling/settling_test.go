package settling

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
)

// leftAlone returns for how long an episode is left alone after a check.
func leftAlone(err error, now time.Time) time.Duration {
	if unsettled, ok := errors.AsType[*UnsettledError](err); ok {
		return unsettled.Until.Sub(now)
	}
	return 0
}

// TestSettledIsJudgedByCtimes: how long an episode is left alone, by what its ctimes say.
func TestSettledIsJudgedByCtimes(t *testing.T) {
	const settle, tick = time.Second, 10 * time.Millisecond
	now := time.Date(2026, 11, 29, 8, 0, 0, 500_000_000, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	marks := func(root, marker, last time.Duration) archive.Marks {
		return archive.Marks{RootChangedAt: ago(root), MarkerChangedAt: ago(marker), ChangedAt: ago(last), Fingerprint: digest.Digest{1}}
	}
	alone := marks(2*settle, 2*settle, 2*settle)
	alone.MarkerAlone = true
	coarse := archive.Marks{
		RootChangedAt: ago(1500 * time.Millisecond), MarkerChangedAt: ago(1500 * time.Millisecond), ChangedAt: ago(1500 * time.Millisecond),
	}
	seen := func(ago_ time.Duration, of byte) *Observation {
		return &Observation{Fingerprint: digest.Digest{of}, At: ago(ago_)}
	}
	for _, c := range []struct {
		what   string
		settle time.Duration
		marks  archive.Marks
		seen   *Observation
		want   time.Duration
	}{
		{"an episode that was finished just now", settle, marks(0, 0, 0), nil, settle + tick},
		{"a while ago", settle, marks(600*time.Millisecond, 600*time.Millisecond, 600*time.Millisecond), nil, 400*time.Millisecond + tick},
		{"long ago", settle, marks(settle+tick, settle+tick, settle+tick), nil, 0},
		{"the folder alone was touched", settle, marks(300*time.Millisecond, time.Hour, time.Hour), nil, 700*time.Millisecond + tick},
		{"a file came after the marker", settle, marks(time.Hour, 5*settle, 2*settle), nil, 8*settle + tick},
		{"long after the marker, and long ago", settle, marks(time.Hour, time.Hour, 10*settle+tick), nil, 0},
		{"a file came after it, and the folder was touched last", settle, marks(settle, 5*settle, 2*settle), nil, 9*settle + tick},
		{"nothing but the marker", settle, alone, nil, 8*settle + tick},
		{"whole seconds", settle, coarse, nil, 500 * time.Millisecond},
		{"no settling", 0, marks(0, 0, 0), nil, 0},
		{"a ctime in the future", settle, marks(-time.Hour, -time.Hour, -time.Hour), nil, settle},
		{"and seen for a while", settle, marks(-time.Hour, -time.Hour, -time.Hour), seen(700*time.Millisecond, 1), 300 * time.Millisecond},
		{"and seen for long enough", settle, marks(-time.Hour, -time.Hour, -time.Hour), seen(settle, 1), 0},
		{"and seen otherwise", settle, marks(-time.Hour, -time.Hour, -time.Hour), seen(settle, 2), settle},
		{"a file in the future, after the marker", settle, marks(time.Hour, time.Hour, -time.Hour), seen(settle, 1), 9 * settle},
		{"a sighting, and the clock is right again", settle, marks(0, 0, 0), seen(time.Hour, 1), settle + tick},
	} {
		if got := leftAlone(checkSettled(c.settle, c.marks, c.seen, now), now); got != c.want {
			t.Errorf("%s: left alone for %v, want %v", c.what, got, c.want)
		}
	}
}

// TestAnErrorOfACopyInProgressIsNotFinal: the survey of a tree that is being changed may differ
// a moment later. Any other error is a failure, as without
func TestAnErrorOfACopyInProgressIsNotFinal(t *testing.T) {
	const settle, tick = time.Second, 10 * time.Millisecond
	now := time.Date(2026, 11, 29, 8, 0, 0, 500_000_000, time.UTC)
	changed, unfit := fmt.Errorf("x vanished: %w", archive.ErrChanged), &archive.UnpackableError{Cause: "meta.json is empty"}
	marks := func(root, below time.Duration) archive.Marks {
		return archive.Marks{RootChangedAt: now.Add(-root), ChangedAt: now.Add(-below)}
	}
	for _, c := range []struct {
		what   string
		err    error
		settle time.Duration
		marks  archive.Marks
		want   time.Duration // 0: the error
	}{
		{"changed meanwhile", changed, settle, archive.Marks{}, 10*settle + tick},
		{"changed meanwhile, without settling", changed, 0, archive.Marks{}, 0},
		{"no right to look", fs.ErrPermission, settle, marks(0, 0), 0},
		{"unfit, below it something is new", unfit, settle, marks(time.Hour, 2*settle), 8*settle + tick},
		{"unfit, and the folder is new", unfit, settle, marks(2*settle, time.Hour), 8*settle + tick},
		{"unfit for long", unfit, settle, marks(10*settle+tick, 10*settle+tick), 0},
		{"unfit, without settling", unfit, 0, marks(0, 0), 0},
		{"unfit, and the clock went back", unfit, settle, marks(time.Hour, -time.Hour), 0},
	} {
		err := checkError(c.err, c.settle, c.marks, now, now)
		if got := leftAlone(err, now); got != c.want || (c.want == 0) != (err == c.err) {
			t.Errorf("%s: left alone for %v, %v, want %v", c.what, got, err, c.want)
		}
	}
}
