package store_test

import (
	"errors"
	"io"
	"os"
	"testing"

	"cis490/internal/digest"
	"cis490/internal/fixture"
	"cis490/internal/store"
)

// expensiveCheck returns a reading with an expensive check that returns err and counts its calls.
func expensiveCheck(calls *int, err error) store.Reading {
	return store.Reading{
		Check: func(io.Reader) (digest.Digest, error) {
			*calls++
			return sum("contents"), err
		},
		Remember: func(error) (int64, bool) { return 1 << 40, true },
	}
}

// What follows from the bytes is computed once, but the bytes are read each time.
func TestExpensiveArchiveIsCheckedOnce(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	calls := 0
	for i := range 3 {
		o, err := l.ReadBack(t.Context(), k, digest.Digest{}, expensiveCheck(&calls, nil))
		fixture.Must(t, err)
		if o.Contents != sum("contents") || o.VerifiedAt.IsZero() || o.Decoded.Digest.IsZero() != (i == 0) {
			t.Errorf("reading %d: %+v", i, o)
		}
	}
	if calls != 1 {
		t.Errorf("checked %d times, want once", calls)
	}
	if d, err := l.DecodedBefore(k, sum("bytes")); err != nil || d.Size != 1<<40 || d.Contents != sum("contents") {
		t.Errorf("got %+v, %v", d, err)
	}
	flipByte(t, l.storedPath(k))
	if _, err := l.ReadBack(t.Context(), k, digest.Digest{}, expensiveCheck(&calls, nil)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("of damaged bytes: %v, want ErrCorrupt", err)
	}
}

func TestExpensiveUndecodableArchiveStaysUndecodable(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	calls := 0
	for range 3 {
		o, err := l.ReadBack(t.Context(), k, digest.Digest{}, expensiveCheck(&calls, errors.New("no")))
		if !errors.Is(err, store.ErrUndecodable) || !o.VerifiedAt.IsZero() {
			t.Errorf("got %+v, %v, want ErrUndecodable", o, err)
		}
	}
	if calls != 1 {
		t.Errorf("checked %d times, want once", calls)
	}
}

// A result belongs to bytes: other bytes under the same name are checked.
func TestOutcomeOfOtherBytesCountsForNothing(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	calls := 0
	_, err := l.ReadBack(t.Context(), k, digest.Digest{}, expensiveCheck(&calls, nil))
	fixture.Must(t, err)
	fixture.Must(t, os.WriteFile(l.storedPath(k), []byte("other"), 0o640)) // the attributes stay
	_, err = l.ReadBack(t.Context(), k, sum("other"), expensiveCheck(&calls, nil))
	fixture.Must(t, err)
	if calls != 2 {
		t.Errorf("checked %d times, want 2", calls)
	}
}

// An interrupted check has no result: the former one stays, and nothing is remembered.
func TestUndecidedCheckChangesNothing(t *testing.T) {
	l, k := newLab(t), key("lab-01", "run-7")
	l.put(k, "bytes")
	calls := 0
	o, err := l.ReadBack(t.Context(), k, digest.Digest{}, expensiveCheck(&calls, store.ErrUndecided))
	if err != nil || !o.VerifiedAt.IsZero() || o.Digest != sum("bytes") {
		t.Errorf("got %+v, %v", o, err)
	}
	before, err := l.readBack(k)
	fixture.Must(t, err)
	o, err = l.ReadBack(t.Context(), k, digest.Digest{}, expensiveCheck(&calls, store.ErrUndecided))
	if err != nil || !o.VerifiedAt.Equal(before.VerifiedAt) || calls != 2 {
		t.Errorf("got %+v, %v, %d calls", o, err, calls)
	}
	flipByte(t, l.storedPath(k))
	if _, err := l.ReadBack(t.Context(), k, digest.Digest{}, expensiveCheck(&calls, store.ErrUndecided)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("of damaged bytes: %v, want ErrCorrupt", err)
	}
}
