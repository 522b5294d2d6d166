package index_test

import (
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/indextest"

	"cis490/internal/fixture"
)

// TestDurableBytesHaveTheRowsThatWereAcknowledged, and none that is torn.
func TestDurableBytesHaveTheRowsThatWereAcknowledged(t *testing.T) {
	dir := t.TempDir()
	l := indextest.OpenLog(t, dir)
	path := filepath.Join(dir, "index.jsonl")
	if got := l.DurableBytes(); got != 0 {
		t.Errorf("an empty index has %d bytes", got)
	}
	for i := range 3 {
		if _, err := l.Append(t.Context(), indextest.Row(i)); err != nil {
			t.Fatal(err)
		}
		found, err := l.FindRows(t.Context(), indextest.Row(i).Key)
		fixture.Must(t, err)
		if _, err := l.EnsureRow(t.Context(), indextest.Row(i), found); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || l.DurableBytes() != info.Size() {
			t.Errorf("after row %d: %d bytes, and the file has %d (%v)", i, l.DurableBytes(), info.Size(), err)
		}
	}
	before := l.DurableBytes()
	fixture.Must(t, l.Close())
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	fixture.Must(t, err)
	_, err = f.WriteString(`{"torn": `)
	fixture.Must(t, err)
	fixture.Must(t, f.Close())
	if got := indextest.OpenLog(t, dir).DurableBytes(); got != before {
		t.Errorf("with a torn row: %d bytes, want %d", got, before)
	}
}
