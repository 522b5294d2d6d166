package receiver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/backendtest"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/pathwatch"
	"cis490/internal/receiver"
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

// TestNoAnswerOfAMovedStoreIsOne: a host may act on what the answer calls stored.
func TestNoAnswerOfAMovedStoreIsOne(t *testing.T) {
	forEachStoreMove(t, func(l *lab, move func()) {
		t := l.TB
		content := fixture.Noise(100, 1)
		l.WantReceipt(key("lab-01", "e"), content, wire.Stored)
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
		err = fixture.ReceiveWithin(t, 10*time.Second, served, "the end")
		if _, moved := errors.AsType[*pathwatch.MovedError](err); !moved {
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
	backendtest.ReplaceDir(t, l.Data)
	err := fixture.ReceiveWithin(t, 10*time.Second, served, "the end")
	if moved, ok := errors.AsType[*pathwatch.MovedError](err); !ok {
		t.Errorf("it ended with %v", err)
	} else if moved.Path != l.Data && filepath.Dir(moved.Path) != l.Data {
		t.Errorf("it names %s, want %s", moved.Path, l.Data)
	}
}

// TestCheckNamesADataDirThatIsALinkToNothing, or is below such a link: the start creates
// neither.
func TestCheckNamesADataDirThatIsALinkToNothing(t *testing.T) {
	link := filepath.Join(t.TempDir(), "data")
	fixture.Must(t, os.Symlink("nowhere", link))
	for _, path := range []string{link, filepath.Join(link, "below")} {
		c := receiver.Config{DataDir: config.Path(path)}
		_, startErr := durable.Create(path)
		checkErr := c.CheckMoves()
		if _, named := errors.AsType[*receiver.ConfigError](checkErr); !named {
			t.Errorf("%s: check says %v", path, checkErr)
		}
		for what, err := range map[string]error{"start": startErr, "check": checkErr} {
			if err == nil || !strings.HasPrefix(err.Error(), link+" is a link to nothing") {
				t.Errorf("%s: %s says %v", path, what, err)
			}
		}
	}
}
