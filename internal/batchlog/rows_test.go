package batchlog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"cis490/internal/buckettest"
	"cis490/internal/fixture"
)

// Rows yields each row of a range once, wherever the range begins and ends in a segment, and however
// little of the log can be read.
func TestRowsOfARange(t *testing.T) {
	in := new(buckettest.Memory)
	const batches = 2*segmentBatches + 5
	put := func(name string, body []byte) {
		fixture.Must(t, in.Put(t.Context(), name, bytes.NewReader(body), int64(len(body)), sha256.Sum256(body)))
	}
	var segment []byte
	for n := int64(1); n <= batches; n++ {
		body := newRow("host-1", fmt.Sprintf("run-%d", n)).Append(nil)
		put(Name(n), body)
		segment = append(segment, body...)
		if n%segmentBatches == 0 {
			put(segmentName(n), segment)
			segment = nil
		}
	}
	count := func(first, last int64) (rows, corrupt int) {
		previous := first - 1
		for row, err := range Rows(t.Context(), in, first, last) {
			if _, ok := errors.AsType[*CorruptError](err); ok {
				corrupt++
				previous++
				continue
			}
			fixture.Must(t, err)
			previous++
			if string(row.Key.Name) != fmt.Sprintf("run-%d", previous) {
				t.Fatalf("from %d to %d: got %s, want run-%d", first, last, row.Key.Name, previous)
			}
			rows++
		}
		return rows, corrupt
	}
	for _, r := range [][2]int64{{1, 1}, {1, 999}, {1, 1000}, {1, 1001}, {2, 1999}, {1001, 2000}, {1001, batches}, {2001, batches}, {1, 0}} {
		want := int(max(0, min(r[1], batches)-r[0]+1))
		if got, corrupt := count(r[0], r[1]); got != want || corrupt != 0 {
			t.Errorf("from %d to %d: got %d rows, %d corrupt, want %d", r[0], r[1], got, corrupt, want)
		}
	}
	in.Tamper(Name(1500), nil, "")
	if got, corrupt := count(1001, batches); got != batches-1000 || corrupt != 0 {
		t.Errorf("with a batch that only its segment has: got %d rows, %d corrupt, want %d", got, corrupt, batches-1000)
	}
	if got, corrupt := count(1002, batches); got != batches-1002 || corrupt != 1 {
		t.Errorf("with a batch that is lost: got %d rows, %d corrupt, want %d and one", got, corrupt, batches-1002)
	}
	if got, err := Last(t.Context(), in); got != batches || err != nil {
		t.Errorf("the last batch: got %d, %v, want %d", got, err, batches)
	}
	in.Tamper(segmentName(1000), []byte("x"), "")
	in.Tamper(Name(7), []byte("x"), "")
	if got, corrupt := count(1, batches); got != batches-1 || corrupt != 1 {
		t.Errorf("with a corrupt batch: got %d rows, %d corrupt, want %d and one", got, corrupt, batches-1)
	}
}
