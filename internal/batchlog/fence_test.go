package batchlog

import (
	"errors"
	"io/fs"
	"testing"

	"cis490/internal/buckettest"
	"cis490/internal/fixture"
)

// After a fence no receiver appends, however long it has run, and none starts. The rows stay readable.
func TestNoRowIsAppendedAfterAFence(t *testing.T) {
	in := new(buckettest.Memory)
	l, idle := openLog(t, in), openLog(t, in)
	ensure(t, l, newRow("host-1", "run-1"))
	before := exported(t, in)
	if err := Fence(t.Context(), in, 0, "elsewhere", "id"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a fence before the last batch: got %v, want fs.ErrExist", err)
	}
	fixture.Must(t, CheckHere(t.Context(), in))
	fixture.Must(t, Fence(t.Context(), in, 1, "elsewhere", "id"))
	isMoved := func(err error) bool {
		moved, ok := errors.AsType[*MovedError](err)
		return ok && moved.To == "elsewhere" && moved.CopyID == "id"
	}
	if _, err := l.Ensure(t.Context(), newRow("host-1", "run-2"), l.Head()); !isMoved(err) {
		t.Errorf("a row after the fence: got %v, want where the store is", err)
	}
	fixture.Must(t, idle.Moved())
	for range 2 {
		if err := idle.CatchUp(t.Context()); !isMoved(err) || !isMoved(idle.Moved()) {
			t.Errorf("a receiver that appends nothing: got %v, %v, want where the store is", err, idle.Moved())
		}
	}
	for _, l := range []*Log{l, idle} {
		if got := l.Head(); got != 1 {
			t.Errorf("the last batch: got %d, want 1", got)
		}
	}
	for known := range int64(3) { // from the start, the batch and the fence on
		if got, err := Head(t.Context(), in, known); got != 1 || !isMoved(err) {
			t.Errorf("the last batch from %d on: got %d, %v, want 1", known, got, err)
		}
	}
	if got, err := Head(t.Context(), in, 3); got != 3 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("from a batch on that does not exist: got %d, %v, want fs.ErrNotExist", got, err)
	}
	rows := 0
	for _, err := range Rows(t.Context(), in, 1, 2) {
		fixture.Must(t, err)
		rows++
	}
	if rows != 1 {
		t.Errorf("rows: got %d, want 1", rows)
	}
	if err := CheckHere(t.Context(), in); !isMoved(err) {
		t.Errorf("the check of a command: got %v, want where the store is", err)
	}
	if _, err := Open(t.Context(), in, l.log); !isMoved(err) {
		t.Errorf("a receiver that starts: got %v, want where the store is", err)
	}
	if got := exported(t, in); got != before {
		t.Errorf("the index: got %q, want %q", got, before)
	}
	ends, err := Ends(t.Context(), in)
	if !isMoved(err) || len(ends) != 1 || ends[0] != int64(len(before)) {
		t.Errorf("the ends: got %v, %v, want %d", ends, err, len(before))
	}
}

// What does not say where the store is must not be taken for a place, or for no takeover.
func TestAnObjectInPlaceOfATakeoverIsAnError(t *testing.T) {
	for _, body := range []string{"", "hello", `{"moved_to":"elsewhere","copy_id":"id"}`, `{"moved_to":"elsewhere","copy_id":"id","store":"S"}` + "\n"} {
		in := new(buckettest.Memory)
		fixture.Must(t, Fence(t.Context(), in, 0, "elsewhere", "first"))
		write(t, in, takeoverName("first"), body)
		_, err := Head(t.Context(), in, 0)
		if _, moved := errors.AsType[*MovedError](err); err == nil || moved {
			t.Errorf("%q: got %v, want an error of the object", body, err)
		}
	}
}

func TestTakeoversThatNameEachOtherEnd(t *testing.T) {
	in := new(buckettest.Memory)
	fixture.Must(t, Fence(t.Context(), in, 0, "elsewhere", "first"))
	write(t, in, takeoverName("first"), `{"moved_to":"elsewhere","copy_id":"second","store":"S"}`)
	write(t, in, takeoverName("second"), `{"moved_to":"elsewhere","copy_id":"first","store":"T"}`)
	_, err := Head(t.Context(), in, 0)
	if _, moved := errors.AsType[*MovedError](err); err == nil || moved {
		t.Errorf("got %v, want an error", err)
	}
}
