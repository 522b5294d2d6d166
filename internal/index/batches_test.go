package index

import (
	"slices"
	"testing"
)

func TestBatchEndsAreParsedAsWritten(t *testing.T) {
	want := []int64{300, 301, 300 + maxBatchBytes}
	got, err := ParseBatchEnds(EncodeBatchEnds(want))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for name, b := range map[string][]byte{
		"not in order": EncodeBatchEnds([]int64{300, 300}),
		"too large":    EncodeBatchEnds([]int64{maxBatchBytes + 1}),
		"cut":          EncodeBatchEnds(want)[:20],
	} {
		if got, err := ParseBatchEnds(b); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func FuzzBatchEnds(f *testing.F) {
	f.Add(EncodeBatchEnds([]int64{300, 700}))
	f.Fuzz(func(t *testing.T, b []byte) {
		ends, err := ParseBatchEnds(b)
		if err == nil && string(EncodeBatchEnds(ends)) != string(b) {
			t.Errorf("%x is parsed as %v", b, ends)
		}
	})
}
