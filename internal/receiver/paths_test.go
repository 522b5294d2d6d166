package receiver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// replaceDir moves the directory at path away and makes an empty one in its place.
func replaceDir(tb testing.TB, path string) {
	tb.Helper()
	fixture.Must(tb, os.Rename(path, path+".x"))
	fixture.Must(tb, os.Mkdir(path, 0o750))
	tb.Cleanup(func() { os.RemoveAll(path + ".x") })
}

// storeMoves returns ways to move the store away from its path, by description.
func storeMoves(l *lab) map[string]func() {
	return map[string]func(){
		"data_dir moved":        func() { replaceDir(l, l.data) },
		"data_dir moved, alone": func() { fixture.Must(l, os.Rename(l.data, l.data+".x")) },
		"episodes moved":        func() { replaceDir(l, filepath.Join(l.data, "episodes")) },
		"staging moved":         func() { replaceDir(l, filepath.Join(l.data, "staging")) },
		"quarantine moved":      func() { replaceDir(l, filepath.Join(l.data, "quarantine")) },
		"a disk over data_dir":  func() { fixture.MountTmpfsAt(l, l.data, "") },
		"a disk over episodes":  func() { fixture.MountTmpfsAt(l, filepath.Join(l.data, "episodes"), "") },
	}
}

// forEachStoreMove calls do with a new lab for each of [storeMoves].
func forEachStoreMove(t *testing.T, do func(l *lab, move func())) {
	t.Helper()
	for what := range storeMoves(nil) {
		t.Run(what, func(t *testing.T) {
			l := newLab(t, nil)
			t.Cleanup(func() { os.RemoveAll(l.data + ".x") })
			do(l, storeMoves(l)[what])
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
		l.wantNoReceipt(l.put(key("h", "e"), fixture.Noise(100, 1)))
		l.wantNoReceipt(l.put(key("h", "e2"), fixture.Noise(100, 2))) // nor the next
	})
}

// TestStoreThatMovesUnderAnUpload: the bytes have arrived, and are not committed.
func TestStoreThatMovesUnderAnUpload(t *testing.T) {
	forEachStoreMove(t, func(l *lab, move func()) {
		t := l.TB
		k, content := key("h", "e"), fixture.Noise(1<<20, 1)
		old, err := os.Open(l.data)
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
		l.wantNoReceipt(l.put(key("h", "e"), fixture.Noise(100, 1)))
	})
}

// TestNoAnswerOfAMovedStoreIsOne: a host may act on what the answer calls stored.
func TestNoAnswerOfAMovedStoreIsOne(t *testing.T) {
	forEachStoreMove(t, func(l *lab, move func()) {
		t := l.TB
		content := fixture.Noise(100, 1)
		l.wantReceipt(key("lab-01", "e"), content, wire.Stored)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		addr, served := l.listen(ctx)
		c := l.newClient(addr, "lab-01")
		_, err := c.Ping(t.Context())
		fixture.Must(t, err)
		move()
		if d, n, err := c.Stat(t.Context(), "e"); err == nil {
			t.Errorf("it says that it has %s, %d bytes", d, n)
		}
		err = receiveWithin(t, 10*time.Second, served, "the end")
		if _, moved := errors.AsType[*durable.MovedError](err); !moved {
			t.Errorf("it ended with %v", err)
		}
	})
}

// TestMovedStoreEndsAnIdleReceiver: otherwise its status would claim that all is well.
func TestMovedStoreEndsAnIdleReceiver(t *testing.T) {
	l := newLab(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, served := l.listen(ctx)
	replaceDir(t, l.data)
	err := receiveWithin(t, 10*time.Second, served, "the end")
	if moved, ok := errors.AsType[*durable.MovedError](err); !ok {
		t.Errorf("it ended with %v", err)
	} else if moved.Path != l.data && filepath.Dir(moved.Path) != l.data {
		t.Errorf("it names %s, want %s", moved.Path, l.data)
	}
}
