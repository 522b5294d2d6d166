package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cis490/internal/config"
	"cis490/internal/fixture"
)

// TestPathForAShellIsRefused: it would be created as written, in a place where no one looks.
func TestPathForAShellIsRefused(t *testing.T) {
	for _, p := range []string{"~/x", "~", "~user/x", "$HOME/x", "${HOME}/x", "/srv/$HOST/x", "/srv/x$_y", "a/~b/$c"} {
		file := write(t, fmt.Sprintf("[receiver]\nca_file = %q\n", p))
		var s settings
		err := config.Load(file, &s)
		if err == nil || !strings.Contains(err.Error(), ":2: receiver.ca_file: ") || !strings.Contains(err.Error(), "write the whole path") {
			t.Errorf("%s: got %v", p, err)
		}
	}
	file := write(t, `extra = ["/ok", "$HOME/x"]`)
	if err := config.Load(file, new(settings)); err == nil || !strings.Contains(err.Error(), ":1: extra: ") {
		t.Errorf("in an array: %v", err)
	}
}

func TestPathWithOtherMarksIsItself(t *testing.T) {
	for _, p := range []string{"/a/b~", "x~y/z", "/srv/$", "/srv/$5/x", "/srv/a/~b", "100$"} {
		var s settings
		if err := config.Load(write(t, fmt.Sprintf("[receiver]\nca_file = %q\n", p)), &s); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// TestPathForAShellThatExistsIsTaken, with a warning.
func TestPathForAShellThatExistsIsTaken(t *testing.T) {
	file := write(t, "[receiver]\nca_file = \"~/later\"\n")
	fixture.Must(t, os.Mkdir(filepath.Join(filepath.Dir(file), "~"), 0o755))
	var s settings
	fixture.Must(t, config.Load(file, &s))
	want := config.Path(filepath.Join(filepath.Dir(file), "~", "later"))
	if got := config.LiteralPaths(s); !slices.Equal(got, []config.Path{want}) || s.Receiver.CA != want {
		t.Errorf("got %q, told of %q, want %q", s.Receiver.CA, got, want)
	}
}
