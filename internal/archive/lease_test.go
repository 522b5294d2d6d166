package archive_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// TestLeasedFileIsNotWaitedFor: it is named, and the episode is not held for it.
func TestLeasedFileIsNotWaitedFor(t *testing.T) {
	l := newUsualLab(t)
	packed, _ := l.pack()
	tree := l.tree(archive.Limits{})
	s, err := tree.Survey(t.Context())
	fixture.Must(l, err)
	fixture.TakeLease(l, l.path("telemetry/a.jsonl"))
	for what, do := range map[string]func(*archive.Tree) error{
		"Survey": func(t *archive.Tree) error { _, err := t.Survey(context.Background()); return err },
		"Marks":  func(t *archive.Tree) error { _, err := t.ReadMarks(context.Background()); return err },
		"Pack": func(t *archive.Tree) error {
			return archive.NewPacker().Pack(context.Background(), &bytes.Buffer{}, t, s)
		},
		"Compare": func(t *archive.Tree) error {
			_, err := archive.Compare(context.Background(), bytes.NewReader(packed), t)
			return err
		},
	} {
		tree := l.tree(archive.Limits{})
		done := make(chan error, 1)
		go func() { done <- do(tree) }()
		select {
		case err := <-done:
			opens := what == "Pack" || what == "Compare"
			if opens != errors.Is(err, durable.ErrLeased) || opens && !strings.Contains(err.Error(), `"telemetry/a.jsonl"`) {
				t.Errorf("%s: got %v", what, err)
			}
			if _, unfit := errors.AsType[*archive.UnpackableError](err); unfit {
				t.Errorf("%s holds the episode: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s waits for whoever has the lease", what)
		}
	}
}

// TestDirectoryCannotBeLeased: directories need no protection, although they are opened before
// their owner is known. This test fails on a kernel that allows leases on them.
func TestDirectoryCannotBeLeased(t *testing.T) {
	l := newUsualLab(t)
	f, err := os.Open(l.path("telemetry"))
	fixture.Must(l, err)
	defer f.Close()
	for _, kind := range []int{unix.F_RDLCK, unix.F_WRLCK} {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, kind); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a lease of kind %d on a directory: %v, want EINVAL", kind, err)
		}
	}
}
