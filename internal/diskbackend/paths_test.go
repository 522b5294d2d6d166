package diskbackend_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"

	"cis490/internal/backendtest"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// forEachStoreMove calls do with a new lab for each way to move its store.
func forEachStoreMove(t *testing.T, do func(l *lab, move func())) {
	t.Helper()
	for what := range new(backendtest.Lab).Moves() {
		t.Run(what, func(t *testing.T) {
			l := newLab(t, nil)
			t.Cleanup(func() { os.RemoveAll(l.Data + ".x") })
			do(l, l.Moves()[what])
		})
	}
}

// wantNoReceipt checks the answer to a request after the store was moved.
func (l *lab) wantNoReceipt(got wire.Receipt, err error) {
	l.Helper()
	if err == nil {
		l.Errorf("acknowledged: %+v", got)
	}
}

func TestNothingIsAcknowledgedIntoAMovedStore(t *testing.T) {
	forEachStoreMove(t, func(l *lab, move func()) {
		move()
		l.wantNoReceipt(l.Put(key("h", "e"), fixture.Noise(100, 1)))
		l.wantNoReceipt(l.Put(key("h", "e2"), fixture.Noise(100, 2))) // nor the next
	})
}

// TestStoreThatMovesUnderAnUpload: the bytes have arrived, and are not committed.
func TestStoreThatMovesUnderAnUpload(t *testing.T) {
	forEachStoreMove(t, func(l *lab, move func()) {
		t := l.TB
		k, content := key("h", "e"), fixture.Noise(1<<20, 1)
		old, err := os.Open(l.Data)
		fixture.Must(t, err)
		defer old.Close()
		moving := readerFunc(func([]byte) (int, error) { move(); return 0, io.EOF })
		body := io.MultiReader(bytes.NewReader(content[:1<<19]), moving, bytes.NewReader(content[1<<19:]))
		got, err := l.b.Put(l.Context(), uploadOf(k, content), body)
		l.wantNoReceipt(got, err)
		if rows, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/index.jsonl", old.Fd())); err != nil || len(rows) > 0 {
			t.Errorf("the index has %q, %v", rows, err)
		}
	})
}

// onStored is a log that calls do when an upload is stored: everything is durable, and the
// answer is not sent.
type onStored struct {
	slog.Handler
	do func()
}

func (h onStored) Enabled(context.Context, slog.Level) bool { return true }

func (h onStored) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "upload stored" {
		h.do()
	}
	return nil
}

func TestStoreThatMovesBeforeTheAnswer(t *testing.T) {
	forEachStoreMove(t, func(l *lab, move func()) {
		l.log = onStored{slog.DiscardHandler, move}
		l.restart(func() {})
		l.wantNoReceipt(l.Put(key("h", "e"), fixture.Noise(100, 1)))
	})
}
