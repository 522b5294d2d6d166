package source_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/source"
)

func (l *lab) open(dir string) *durable.Dir {
	l.Helper()
	d, err := durable.Open(filepath.Join(l.shipped, dir))
	fixture.Must(l, err)
	l.Cleanup(func() { d.Close() })
	return d
}

func (l *lab) lookup(dir string) source.Retired {
	l.Helper()
	r, err := l.ReadRetired(dir)
	fixture.Must(l, err)
	return r
}

func TestStateTravelsWithTheEpisode(t *testing.T) {
	l := newLab(t)
	l.makeFinished(l.episodes, "run-7", "x")
	state := source.State{Fingerprint: digest.Short{1}, Skips: digest.Short{2}, Contents: digest.Digest{3}}
	fixture.Must(l, l.Retire("run-7", receiptOf("first"), state))
	if r := l.lookup("run-7"); r.State != state || !r.HasReceipt || r.Change != nil {
		t.Errorf("got %+v", r)
	}
	fixture.Must(l, l.Resend(l.lookup("run-7")))
	fixture.Must(l, l.Retire("run-7", nil, source.State{}))
	if r := l.lookup("run-7"); r.State != (source.State{}) || r.HasReceipt {
		t.Errorf("accepted as it is, it has the state of what was shipped: %+v", r)
	}
}

// TestChangeShowsANameEscapedOnce: the comparison quotes names, and its note may be read back
// many times.
func TestChangeShowsANameEscapedOnce(t *testing.T) {
	l := newLab(t)
	l.makeFinished(l.episodes, "run-7", "x")
	fixture.Must(l, l.Retire("run-7", receiptOf("first"), source.State{}))
	fixture.Must(l, source.RecordChange(l.open("run-7"), source.Change{At: time.Unix(1e9, 0), Cause: `"esc\x1b" changed, and ` + "\xff"}))
	if r, want := l.lookup("run-7"), `"esc\x1b" changed, and \xff`; r.Change == nil || r.Change.Cause != want {
		t.Errorf("got %+v, want %s", r.Change, want)
	}
}

func TestChangeKeepsTheTimeOfItsFirstNote(t *testing.T) {
	l := newLab(t)
	l.makeFinished(l.episodes, "run-7", "x")
	fixture.Must(l, l.Retire("run-7", receiptOf("first"), source.State{}))
	dir := l.open("run-7")
	first := source.Change{At: time.Unix(1e9, 0).UTC(), Cause: `"x" changed`, Fingerprint: digest.Short{7}}
	fixture.Must(l, source.RecordChange(dir, first))
	if r := l.lookup("run-7"); r.Change == nil || *r.Change != first {
		t.Errorf("got %+v, want %+v", r.Change, first)
	}
	fixture.Must(l, source.RecordChange(dir, source.Change{At: time.Unix(2e9, 0), Cause: strings.Repeat("y", 5000)}))
	r := l.lookup("run-7")
	if r.Change == nil || !r.Change.At.Equal(first.At) || r.Change.Cause[0] != 'y' || len(r.Change.Cause) > 500 {
		t.Errorf("got %+v", r.Change)
	}
	fixture.Must(l, source.RecordState(dir, source.State{Contents: digest.Digest{1}}))
	if r := l.lookup("run-7"); r.Change != nil || r.State.Contents != (digest.Digest{1}) {
		t.Errorf("equal again, it is %+v", r)
	}
	// A corrected episode that is shipped again has no change.
	fixture.Must(l, source.RecordChange(dir, first))
	fixture.Must(l, l.Resend(l.lookup("run-7")))
	fixture.Must(l, l.Retire("run-7", receiptOf("second"), source.State{}))
	if r := l.lookup("run-7"); r.Change != nil {
		t.Errorf("shipped again, it is %+v", r.Change)
	}
}

// A write within a tick of the kernel's clock leaves the ctime as it is.
func TestFingerprintCountsOnlyOfWhatWasQuiet(t *testing.T) {
	at := time.Unix(1e9, 0)
	m := archive.Marks{Below: digest.Digest{1}, Skips: digest.Digest{2}}
	for quiet, counts := range map[time.Duration]bool{
		time.Hour: true, 2 * time.Second: true, 2*time.Second - 1: false, 0: false, -time.Hour: false,
	} {
		m.ChangedAt = at.Add(-quiet)
		s := source.StateOf(m, at)
		if (s.Fingerprint != digest.Short{}) != counts || s.Skips != (digest.Short{2}) {
			t.Errorf("quiet for %v: %+v", quiet, s)
		}
	}
}

func TestAnotherVersionsStateIsNone(t *testing.T) {
	l := newLab(t)
	l.makeFinished(l.episodes, "run-7", "x")
	fixture.Must(l, l.Retire("run-7", receiptOf("first"), source.State{Skips: digest.Short{1}}))
	for _, value := range [][]byte{nil, {2, 1, 1}, make([]byte, 200)} {
		f, err := os.Open(filepath.Join(l.shipped, "run-7"))
		fixture.Must(l, err)
		fixture.Must(l, durable.SetAttr(f, "state", value))
		f.Close()
		if r := l.lookup("run-7"); r.State != (source.State{}) || !r.HasReceipt {
			t.Errorf("of %x: %+v", value, r)
		}
	}
}

// The user who made the episode may write its attributes: no time in one can make the status of
// the host, or a list of shipped episodes, fail.
func FuzzChange(f *testing.F) {
	for _, sec := range []int64{0, 1e9, 253402300800, -62135596801, math.MaxInt64, math.MinInt64} {
		f.Add(append(binary.BigEndian.AppendUint64(nil, uint64(sec)), make([]byte, 30)...))
	}
	f.Add([]byte("short"))
	l := newLab(f)
	dir := filepath.Join(l.shipped, "run-7")
	fixture.Must(l, os.Mkdir(dir, 0o755))
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) > 512 {
			return
		}
		if err := unix.Setxattr(dir, "user.cis490.changed", value, 0); err != nil {
			t.Skip(err)
		}
		r, err := l.ReadRetired("run-7")
		if err != nil || r.Change == nil {
			t.Fatalf("%q: %+v, %v", value, r, err)
		}
		if _, err := json.Marshal(r.Change); err != nil {
			t.Errorf("%q: %v", value, err)
		}
	})
}
