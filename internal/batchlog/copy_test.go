package batchlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cis490/internal/buckettest"
	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// openDir opens a directory for a copy.
func openDir(t *testing.T, path string) *durable.Dir {
	t.Helper()
	dir, err := durable.Open(path)
	fixture.Must(t, err)
	t.Cleanup(func() { dir.Close() })
	return dir
}

// catchUp opens a copy, completes it and closes it.
func catchUp(t *testing.T, dir *durable.Dir, in *buckettest.Memory) error {
	t.Helper()
	c, err := OpenCopy(dir, "index.jsonl", "store-1")
	if err != nil {
		return err
	}
	return errors.Join(c.CatchUp(t.Context(), in, nil), c.Close())
}

func TestACopyIsTheIndexWhateverWasWrittenBeforeACrash(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	for i := range 4 {
		ensure(t, l, newRow("host", fmt.Sprintf("run-%d", i)))
	}
	want := exported(t, in)
	for cut := 0; cut <= len(want); cut += 61 {
		path := t.TempDir()
		dir := openDir(t, path)
		file := filepath.Join(path, "index.jsonl")
		fixture.Must(t, catchUp(t, dir, new(buckettest.Memory)))
		fixture.Must(t, os.WriteFile(file, []byte(want[:cut]), 0o640)) // and the file beside it is older
		fixture.Must(t, catchUp(t, dir, in))
		got, err := os.ReadFile(file)
		fixture.Must(t, err)
		if string(got) != want {
			t.Fatalf("after a crash at %d: got %d bytes, want %d", cut, len(got), len(want))
		}
		if cut > 61 { // two suffice for what follows
			continue
		}
		ensure(t, l, newRow("host", fmt.Sprintf("later-%d", cut)))
		want = exported(t, in)
		fixture.Must(t, catchUp(t, dir, in))
		if got, err = os.ReadFile(file); err != nil || string(got) != want {
			t.Fatalf("later: got %d bytes, %v, want %d", len(got), err, len(want))
		}
	}
}

// TestACopyRequestsOnlyWhatTheLogHasForgotten: a receiver requests each batch of the others once, and none of its
// own.
func TestACopyRequestsOnlyWhatTheLogHasForgotten(t *testing.T) {
	in := new(buckettest.Memory)
	first := openLog(t, in)
	ensure(t, first, newRow("host", "run-1"))
	l := openLog(t, in)
	ensure(t, l, newRow("host", "run-2"))
	ensure(t, first, newRow("host", "run-3"))
	path := t.TempDir()
	c, err := OpenCopy(openDir(t, path), "index.jsonl", "store-1")
	fixture.Must(t, err)
	defer c.Close()

	check := func(when string, wantReads int, want string) {
		t.Helper()
		before := in.Requests()[buckettest.OpOpen]
		fixture.Must(t, c.CatchUpTo(t.Context(), l))
		if n := in.Requests()[buckettest.OpOpen] - before; n != wantReads {
			t.Errorf("%s: read %d objects, want %d", when, n, wantReads)
		}
		if got, err := os.ReadFile(filepath.Join(path, "index.jsonl")); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", when, got, err, want)
		}
	}
	all := exported(t, in)
	known := strings.Join(slices.Collect(strings.Lines(all))[:2], "")
	l.mu.Lock()
	l.tail.forgetFirst() // batch 1
	l.mu.Unlock()
	check("one batch forgotten, one not read", 2, known) // its segment, and the batch
	fixture.Must(t, l.CatchUp(t.Context()))
	check("all in memory", 0, all)
	check("nothing new", 0, all)
}

func TestAnotherFileIsNotExtended(t *testing.T) {
	in := new(buckettest.Memory)
	l := openLog(t, in)
	for i := range 2 {
		ensure(t, l, newRow("host", fmt.Sprintf("run-%d", i)))
	}
	for _, tt := range []struct{ name, file, state string }{
		{"other rows", "{}\n", `{"store":"store-1","next":1,"bytes":0}`},
		{"an index on the disk", "{}\n", ""},
		{"another store", "", `{"store":"other","next":1,"bytes":0}`},
		{"shorter than it was", "x", `{"store":"store-1","next":2,"bytes":200}`},
		{"no state", "", `{"store":"store-1","next":0,"bytes":0}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir()
			file := filepath.Join(path, "index.jsonl")
			fixture.Must(t, os.WriteFile(file, []byte(tt.file), 0o640))
			if tt.state != "" {
				fixture.Must(t, os.WriteFile(filepath.Join(path, CopyStateName("index.jsonl")), []byte(tt.state), 0o640))
			}
			if err := catchUp(t, openDir(t, path), in); !errors.Is(err, ErrOtherFile) {
				t.Errorf("got %v, want %v", err, ErrOtherFile)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != tt.file {
				t.Errorf("the file: got %q, %v, want %q", got, err, tt.file)
			}
		})
	}
}
