package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/fixture"
)

func TestContainsSeesThroughLinks(t *testing.T) {
	at := t.TempDir()
	path := func(name string) string { return filepath.Join(at, name) }
	fixture.Must(t, errors.Join(os.MkdirAll(path("a/b/c"), 0o755), os.Mkdir(path("ab"), 0o755),
		os.Symlink(path("a"), path("link")), os.Symlink(path("a/b"), path("ab/in"))))
	for _, c := range []struct {
		dir, other string
		want       bool
	}{
		{"a", "a", true},
		{"a", "a/b", true},
		{"a", "a/b/c", true},
		{"a/b", "a", false},
		{"a", "ab", false},
		{"a", "link", true},
		{"link", "a/b", true},
		{"a", "ab/in", true},
		{"ab", "ab/in", false},
		{".", "a/b/c", true},
	} {
		got, err := openAt(t, path(c.dir)).Contains(openAt(t, path(c.other)))
		fixture.Must(t, err)
		if got != c.want {
			t.Errorf("%s contains %s: %v, want %v", c.dir, c.other, got, c.want)
		}
	}
}
