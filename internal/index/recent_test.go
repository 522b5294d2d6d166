package index_test

import (
	"slices"
	"strings"
	"testing"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/indextest"
)

// TestRowsAreTheSameInBothDirections: with lines that are not rows, and a row that is being appended.
func TestRowsAreTheSameInBothDirections(t *testing.T) {
	var text []byte
	var want []episode.Name
	for i := range 400 { // more than a block
		row := indextest.Row(i)
		text = row.Append(text)
		want = append(want, row.Key.Name)
		if i%100 == 7 {
			text = append(text, "not a row\n\n"...)
		}
	}
	text = append(text, `{"host_id": "lab-0`...)
	r, size := strings.NewReader(string(text)), int64(len(text))
	var forward, backward []episode.Name
	middle := int64(0)
	for row, err := range index.RowsBackward(r, size, 0) {
		fixture.Must(t, err)
		backward = append(backward, row.Key.Name)
		if len(backward) == 200 {
			middle = row.End
		}
	}
	for row, err := range index.RowsBetween(r, 0, middle) {
		fixture.Must(t, err)
		forward = append(forward, row.Key.Name)
	}
	for row, err := range index.RowsBetween(r, middle, size) {
		fixture.Must(t, err)
		forward = append(forward, row.Key.Name)
		if got, err := index.ParseRow(text[row.Start:row.End]); err != nil || got != row.Row {
			t.Fatalf("between %d and %d is %v, %v, want %v", row.Start, row.End, got, err, row.Row)
		}
	}
	slices.Reverse(backward)
	if !slices.Equal(backward, want) || !slices.Equal(forward, want) {
		t.Errorf("%d rows: %d forward, %d backward", len(want), len(forward), len(backward))
	}
}
