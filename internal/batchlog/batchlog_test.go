package batchlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
)

// openLog opens the log of a receiver.
func openLog(t testing.TB, in bucket.Bucket) *Log {
	t.Helper()
	l, err := Open(t.Context(), in, slog.New(slog.DiscardHandler))
	fixture.Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// newRow returns a row for an episode.
func newRow(host, name string) index.Row {
	return index.Row{
		ReceivedAt: time.Now(), Key: episode.Key{Host: episode.Name(host), Name: episode.Name(name)},
		SHA256: sha256.Sum256([]byte(name)), Size: 1,
	}
}

// ensure ensures a row that no batch so far can have.
func ensure(t testing.TB, l *Log, row index.Row) index.Row {
	t.Helper()
	got, err := l.Ensure(t.Context(), row, l.Head())
	fixture.Must(t, err)
	return got
}

// exported returns the index.
func exported(t testing.TB, in bucket.Bucket) string {
	t.Helper()
	var all []byte
	_, err := Export(t.Context(), in, 1, func(rows []byte) error {
		all = append(all, rows...)
		return nil
	})
	fixture.Must(t, err)
	return string(all)
}

// rowsOf parses an index.
func rowsOf(t testing.TB, text string) []index.Row {
	t.Helper()
	var rows []index.Row
	for row, err := range index.ReadRows(strings.NewReader(text)) {
		fixture.Must(t, err)
		rows = append(rows, row)
	}
	return rows
}

func TestRowsOfAllReceiversHaveOneOrder(t *testing.T) {
	in := new(buckettest.Memory)
	const receivers, rows = 3, 200
	var g sync.WaitGroup
	for r := range receivers {
		l := openLog(t, in)
		for i := range rows {
			g.Go(func() {
				if _, err := l.Ensure(t.Context(), newRow(fmt.Sprintf("host-%d", r), fmt.Sprintf("run-%d", i)), l.Head()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	g.Wait()
	got := rowsOf(t, exported(t, in))
	if len(got) != receivers*rows {
		t.Fatalf("rows: got %d, want %d", len(got), receivers*rows)
	}
	keys := map[episode.Key]bool{}
	for i, row := range got {
		keys[row.Key] = true
		if i > 0 && row.ReceivedAt.Before(got[i-1].ReceivedAt) {
			t.Fatalf("row %d arrived at %v, before the one above it, %v", i, row.ReceivedAt, got[i-1].ReceivedAt)
		}
	}
	if len(keys) != receivers*rows {
		t.Errorf("keys: got %d, want %d", len(keys), receivers*rows)
	}
}

func TestACommitHasOneRow(t *testing.T) {
	in := new(buckettest.Memory)
	logs := []*Log{openLog(t, in), openLog(t, in), openLog(t, in)}
	ensure(t, logs[0], newRow("host", "earlier"))
	since := logs[0].Head()
	var g sync.WaitGroup
	got := make([]index.Row, 30)
	for i := range got {
		g.Go(func() {
			row := newRow("host", "run-1")
			var err error
			if got[i], err = logs[i%len(logs)].Ensure(t.Context(), row, since); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	rows := rowsOf(t, exported(t, in))
	if len(rows) != 2 {
		t.Fatalf("rows: got %d, want 2: %s", len(rows), exported(t, in))
	}
	for i, row := range got {
		if !row.ReceivedAt.Equal(rows[1].ReceivedAt) || row.Key != rows[1].Key {
			t.Errorf("call %d returned %v, and the log has %v", i, row, rows[1])
		}
	}
}

// Requests for one commit can wait for the same batch.
func TestRequestsForACommitShareARow(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	replies := make(chan reply, 3)
	var pending []request
	for _, name := range []string{"run-1", "run-2", "run-1"} {
		row := newRow("host", name)
		row.ReceivedAt = row.ReceivedAt.UTC().Truncate(time.Microsecond)
		pending = append(pending, request{row, 0, replies})
	}
	l.append(t.Context(), pending)
	rows := rowsOf(t, exported(t, in))
	if len(rows) != 2 || rows[0].Key.Name != "run-1" || rows[1].Key.Name != "run-2" {
		t.Fatalf("rows: got %v, want one of run-1 and one of run-2", rows)
	}
	for _, want := range []int{0, 1, 0} {
		if got := <-replies; got.err != nil || !got.row.ReceivedAt.Equal(rows[want].ReceivedAt) || got.row.Key != rows[want].Key {
			t.Errorf("got %v, %v, want the row %v", got.row, got.err, rows[want])
		}
	}
}

// A second commit of a key, a repair, has a row of its own.
func TestALaterCommitOfAKeyHasItsOwnRow(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	first := ensure(t, l, newRow("host", "run-1"))
	repaired := newRow("host", "run-1")
	repaired.Repaired = true
	since := l.Head()
	for range 2 {
		got, err := l.Ensure(t.Context(), repaired, since)
		fixture.Must(t, err)
		if !got.Repaired {
			t.Errorf("got %v, want the repaired row", got)
		}
	}
	again, err := openLog(t, in).Ensure(t.Context(), newRow("host", "run-1"), 0)
	fixture.Must(t, err)
	if again.Repaired || !again.ReceivedAt.Equal(first.ReceivedAt) {
		t.Errorf("the first commit: got %v, want %v", again, first)
	}
	if n := len(rowsOf(t, exported(t, in))); n != 2 {
		t.Errorf("rows: got %d, want 2", n)
	}
}

func TestRowsThatTheTailHasForgottenAreFound(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	first := ensure(t, l, newRow("host", "run-1"))
	for i := range maxTailBatches + 50 {
		ensure(t, l, newRow("host", fmt.Sprintf("other-%d", i)))
	}
	l.segments.wait()
	for _, receiver := range []*Log{l, openLog(t, in)} {
		got, err := receiver.Ensure(t.Context(), newRow("host", "run-1"), 0)
		fixture.Must(t, err)
		if !got.ReceivedAt.Equal(first.ReceivedAt) {
			t.Errorf("got a row of %v, want that of %v", got.ReceivedAt, first.ReceivedAt)
		}
	}
	// A commit whose row is missing, made long ago, gets one.
	got, err := openLog(t, in).Ensure(t.Context(), newRow("host", "lost"), 7)
	fixture.Must(t, err)
	if got.Key.Name != "lost" || got.ReceivedAt.Before(first.ReceivedAt) {
		t.Errorf("got %v", got)
	}
	if n := len(rowsOf(t, exported(t, in))); n != maxTailBatches+52 {
		t.Errorf("rows: got %d, want %d", n, maxTailBatches+52)
	}
}

func TestSegmentsChangeNoByteOfTheIndex(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	var want []byte
	for i := range segmentBatches + 5 {
		want = ensure(t, l, newRow("host", fmt.Sprintf("run-%d", i))).Append(want)
	}
	l.segments.wait()
	if _, err := in.Stat(t.Context(), segmentName(segmentBatches)); err != nil {
		t.Errorf("the segment: %v", err)
	}
	if got := exported(t, in); got != string(want) {
		t.Errorf("with a segment: got %d bytes, want %d", len(got), len(want))
	}
	for last, wantEnd := range map[int64]int64{segmentBatches - 1: 1, segmentBatches: segmentBatches} {
		if _, _, end, err := ReadFrom(t.Context(), in, 1, last); end != wantEnd || err != nil {
			t.Errorf("read from 1 up to %d: got the end %d, %v, want %d", last, end, err, wantEnd)
		}
	}
	fixture.Must(t, in.Remove(t.Context(), segmentName(segmentBatches)))
	if got := exported(t, in); got != string(want) {
		t.Errorf("without a segment: got %d bytes, want %d", len(got), len(want))
	}
}

func TestAnExportContinuesWhereItEnded(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	var got []byte
	next := int64(1)
	for i := range 5 {
		ensure(t, l, newRow("host", fmt.Sprintf("run-%d", i)))
		var err error
		next, err = Export(t.Context(), in, next, func(rows []byte) error {
			got = append(got, rows...)
			return nil
		})
		fixture.Must(t, err)
	}
	if want := exported(t, in); string(got) != want || next != 6 {
		t.Errorf("got %d bytes and batch %d next, want %d and 6", len(got), next, len(want))
	}
}

func TestOpenFindsTheEnd(t *testing.T) {
	in := new(buckettest.Memory)
	for n := range int64(70) {
		l := openLog(t, in)
		if got := l.Head(); got != n {
			t.Fatalf("head: got %d, want %d", got, n)
		}
		ensure(t, l, newRow("host", fmt.Sprintf("run-%d", n)))
	}
}

// write puts an object that a receiver would not write.
func write(t *testing.T, in bucket.Bucket, name, text string) {
	t.Helper()
	fixture.Must(t, in.Put(t.Context(), name, strings.NewReader(text), int64(len(text)), sha256.Sum256([]byte(text))))
}

func TestALogThatIsNotWholeIsRefused(t *testing.T) {
	line := string(newRow("host", "run-9").Append(nil))
	for _, tt := range []struct{ name, object, text, want string }{
		{"a gap", Name(5), line, "log/0000000004.jsonl is missing although log/0000000005.jsonl exists"},
		{"a file of somebody else", "log/notes.txt", "x", "log/notes.txt is not an object of a receiver"},
		{"a row without its end", Name(4), strings.TrimSpace(line), "is not a batch of rows: it does not end with a row"},
		{"no row", Name(4), "hello\n", "is not a batch of rows: line 1"},
		{"nothing", Name(4), "", "is not a batch of rows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := new(buckettest.Memory)
			l := openLog(t, in)
			for i := range 3 {
				ensure(t, l, newRow("host", fmt.Sprintf("run-%d", i)))
			}
			write(t, in, tt.object, tt.text)
			_, err := Open(t.Context(), in, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A batch of something else under the next number ends all acknowledgements.
func TestNoRowIsWrittenAfterACorruptBatch(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	ensure(t, l, newRow("host", "run-1"))
	write(t, in, Name(2), "hello\n")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if row, err := l.Ensure(ctx, newRow("host", "run-2"), 1); err == nil || !strings.Contains(err.Error(), "is not a batch of rows") {
		t.Errorf("got %v, %v", row, err)
	}
}

// After the last batches were lost, a row would be written again and again, and none of them found.
func TestNoRowIsWrittenForACommitBeyondTheEnd(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	ensure(t, l, newRow("host", "run-1"))
	for range 2 {
		row, err := l.Ensure(t.Context(), newRow("host", "run-2"), 3)
		if err == nil || !strings.Contains(err.Error(), "has lost "+Name(2)) {
			t.Errorf("got %v, %v, want that %s is lost", row, err, Name(2))
		}
	}
	if got := l.Head(); got != 1 {
		t.Errorf("the last batch: got %d, want 1", got)
	}
}

func TestRefreshReadsWhatOthersAppended(t *testing.T) {
	in := new(buckettest.Memory)
	one, other := openLog(t, in), openLog(t, in)
	for i := range 3 {
		ensure(t, one, newRow("host", fmt.Sprintf("run-%d", i)))
	}
	known, err := other.Refresh(t.Context(), 3)
	if !known || err != nil || other.Head() != 3 {
		t.Errorf("got %v, %v and head %d, want 3", known, err, other.Head())
	}
	if known, err := other.Refresh(t.Context(), 1<<40); known || err != nil {
		t.Errorf("a batch that does not exist: got %v, %v", known, err)
	}
	a, err := one.Sum(t.Context(), 2)
	fixture.Must(t, err)
	b, err := other.Sum(t.Context(), 2)
	fixture.Must(t, err)
	if a != b || a == (digest.Digest{}) {
		t.Errorf("sums: got %v and %v", a, b)
	}
}

func TestTheTailIsBounded(t *testing.T) {
	tl := newTail(0)
	row := newRow("host", "run-1")
	for n := range int64(3 * maxTailBatches) {
		row.ReceivedAt = row.ReceivedAt.Add(time.Second)
		tl.add(batch{number: n + 1, body: bytes.Repeat([]byte("x"), 4<<10), rows: []index.Row{row}})
		if len(tl.batches) > maxTailBatches || tl.bytes > maxTailBytes || len(tl.rows[row.Key]) != len(tl.batches) {
			t.Fatalf("batch %d: got %d batches with %d bytes and %d rows", n+1, len(tl.batches), tl.bytes, len(tl.rows[row.Key]))
		}
	}
	if len(tl.batches) != maxTailBytes/(4<<10) || tl.floor()+int64(len(tl.batches)) != tl.head {
		t.Errorf("got %d batches above %d up to %d", len(tl.batches), tl.floor(), tl.head)
	}
}

func FuzzNumberOf(f *testing.F) {
	f.Add(Name(1))
	f.Add("log/00000000010.jsonl")
	f.Fuzz(func(t *testing.T, name string) {
		if n := numberOf(name); n != 0 && Name(n) != name {
			t.Errorf("%q: got %d, whose name is %q", name, n, Name(n))
		}
	})
}

func FuzzParseRows(f *testing.F) {
	f.Add(newRow("host", "run-1").Append(nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		rows, err := parseRows(body)
		if err != nil {
			return
		}
		var again []byte
		for _, row := range rows {
			again = row.Append(again)
		}
		parsed, err := parseRows(again)
		if err != nil || !slices.EqualFunc(rows, parsed, func(a, b index.Row) bool { return a.Key == b.Key && a.SHA256 == b.SHA256 }) {
			t.Errorf("%q: got %v, then %v, %v", body, rows, parsed, err)
		}
	})
}
