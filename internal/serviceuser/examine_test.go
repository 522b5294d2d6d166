package serviceuser_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/serviceuser"
)

// secret makes a file in a directory that everybody can reach, or not.
func secret(t *testing.T, mode, folder fs.FileMode, uid, gid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "secret")
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "server.key")
	fixture.Must(t, errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode), os.Chmod(dir, folder)))
	if uid >= 0 {
		fixture.Must(t, os.Chown(path, uid, gid))
	}
	return path
}

// TestExposedSecretIsAnErrorAndTheRestANote: a file that all can read is not a secret. Each
// note has the command.
func TestExposedSecretIsAnErrorAndTheRestANote(t *testing.T) {
	for _, c := range []struct {
		mode, folder fs.FileMode
		uid, gid     int // -1: the id of this process
		note, err    string
	}{
		{0o600, 0o755, -1, -1, "", ""},
		{0o640, 0o755, -1, -1, "", ""},
		{0o400, 0o755, -1, -1, "", ""},
		{0o644, 0o755, -1, -1, "", "every user of this machine can read it: run chmod 0640 PATH"},
		{0o604, 0o755, -1, -1, "", "every user of this machine can read it: run chmod 0600 PATH"},
		{0o666, 0o755, -1, -1, "", "every user of this machine can change it: run chmod 0640 PATH"},
		{0o644, 0o700, -1, -1, "PATH is closed to others by its folder only: run chmod o-rw PATH", ""},
		{0o660, 0o755, -1, -1, "can be changed by the group", ""},
		{0o640, 0o755, 0, 4242, "PATH can be read by the group 4242: run chgrp root PATH && chmod 0640 PATH", ""},
		{0o640, 0o755, 4243, 0, "PATH belongs to uid 4243, who can change it: run chown root:root PATH && chmod 0640 PATH", ""},
		{0o600, 0o755, 0, 4242, "", ""}, // the group has no right
	} {
		if c.uid >= 0 && os.Getuid() != 0 {
			continue
		}
		path := secret(t, c.mode, c.folder, c.uid, c.gid)
		s, err := serviceuser.ExamineSecret(path)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if want := strings.ReplaceAll(c.err, "PATH", path); !strings.Contains(got, want) || (want == "") != (err == nil) || (err != nil) != errors.Is(err, serviceuser.ErrExposed) {
			t.Errorf("%o in %o of %d:%d: error %v, want %s", c.mode, c.folder, c.uid, c.gid, err, want)
		}
		if want := strings.ReplaceAll(c.note, "PATH", path); !strings.Contains(s.Note, want) || (want == "") != (s.Note == "") {
			t.Errorf("%o in %o of %d:%d: note %q, want %q", c.mode, c.folder, c.uid, c.gid, s.Note, want)
		}
	}
	for _, path := range []string{"", "/run/credentials/cis490-shipper.service/key"} {
		if s, err := serviceuser.ExamineSecret(path); err != nil || s != (serviceuser.Secret{}) {
			t.Errorf("%q: %+v, %v", path, s, err)
		}
	}
}

// TestFolderSaysWhoMakesIt, or that no user can.
func TestFolderSaysWhoMakesIt(t *testing.T) {
	dir := t.TempDir()
	f, err := serviceuser.ExamineFolder(dir, false)
	if err != nil || !f.Exists || f.MadeBy != "" || !strings.HasPrefix(f.String(), "writable (") {
		t.Errorf("one that exists: %+v, %v", f, err)
	}
	f, err = serviceuser.ExamineFolder(filepath.Join(dir, "a", "b"), false)
	if us := serviceuser.Current().Name(); err != nil || f.Exists || f.MadeBy != us || f.String() != "missing: "+us+" makes it at the next start" {
		t.Errorf("one that is missing: %+v, %v", f, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	file := filepath.Join(dir, "file")
	fixture.Must(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{file, filepath.Join(file, "in")} {
		if _, err := serviceuser.ExamineFolder(path, false); err == nil {
			t.Errorf("%s was found good", path)
		}
	}
}

// TestFolderOfOthersIsAnError for the user that the program has become.
func TestFolderOfOthersIsAnError(t *testing.T) {
	dir := folder(t)
	closed := filepath.Join(dir, "closed")
	fixture.Must(t, os.Mkdir(closed, 0o755))
	for _, c := range []struct{ path, was, want string }{
		{closed, "nobody", "permission denied; " + closed + " belongs to root"},
		{filepath.Join(closed, "new"), "nobody", "is missing, and uid 4242 cannot make it: write in " + closed + ": permission denied"},
		{filepath.Join(closed, "new"), "root", "a start by root makes " + closed + "/new; uid 4242 cannot, for a unit run install -d -o 4242 -g 4242 -m 0750 " + closed + "/new"},
	} {
		if out, _ := do(t, "folder", 4242, c.path, c.was); !strings.Contains(out, c.want) {
			t.Errorf("%s: it said %s, want %s", c.path, out, c.want)
		}
	}
}
