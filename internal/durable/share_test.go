package durable_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

const sharedGID = 4243

// openSharable returns an open directory whose entries can be given to any group.
func openSharable(t *testing.T) (*durable.Dir, string) {
	t.Helper()
	fixture.RequireRoot(t)
	return openTemp(t)
}

func ownership(t *testing.T, path string) (mode fs.FileMode, uid, gid uint32) {
	t.Helper()
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, 0
	}
	fixture.Must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return info.Mode() &^ fs.ModeDir, st.Uid, st.Gid
}

func TestSharingChangesGroupAndGroupBitsOnly(t *testing.T) {
	d, path := openSharable(t)
	for _, c := range []struct{ before, want fs.FileMode }{
		{0o700, 0o770},
		{0, 0o070},
		{0o705, 0o775},
		{fs.ModeSetgid | fs.ModeSticky | 0o755, fs.ModeSetgid | fs.ModeSticky | 0o775},
		{fs.ModeSetgid | 0o770, fs.ModeSetgid | 0o770},
	} {
		dir, inside := filepath.Join(path, "x"), filepath.Join(path, "x", "inside")
		fixture.Must(t, os.Mkdir(dir, 0o700))
		fixture.Must(t, os.Mkdir(inside, 0o700))
		fixture.Must(t, os.Chown(dir, otherUID, otherUID))
		fixture.Must(t, os.Chmod(dir, c.before))
		if changed, err := d.ShareDir("x", sharedGID); !changed || err != nil {
			t.Errorf("%v: got %v, %v", c.before, changed, err)
		}
		if mode, uid, gid := ownership(t, dir); mode != c.want || uid != otherUID || gid != sharedGID {
			t.Errorf("%v became %v of %d:%d, want %v of %d:%d", c.before, mode, uid, gid, c.want, otherUID, sharedGID)
		}
		if mode, uid, gid := ownership(t, inside); mode != 0o700 || uid != 0 || gid != 0 {
			t.Errorf("what is in it became %v of %d:%d", mode, uid, gid)
		}
		if changed, err := d.ShareDir("x", sharedGID); changed || err != nil {
			t.Errorf("%v: the second time got %v, %v", c.before, changed, err)
		}
		fixture.Must(t, os.RemoveAll(dir))
	}
}

// TestOnlyDirectoriesOfTheMountAreShared, and nothing blocks at other files.
func TestOnlyDirectoriesOfTheMountAreShared(t *testing.T) {
	d, path := openSharable(t)
	victim := t.TempDir()
	fixture.Must(t, os.Chmod(victim, 0o700))
	at := filepath.Join(path, "x")
	for what, put := range map[string]func() error{
		"nothing":         func() error { return nil },
		"a file":          func() error { return os.WriteFile(at, nil, 0o600) },
		"a FIFO":          func() error { return unix.Mkfifo(at, 0o600) },
		"a device":        func() error { return unix.Mknod(at, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) },
		"a link":          func() error { return os.Symlink(victim, at) },
		"a link to a dot": func() error { return os.Symlink(".", at) },
		"a hard link":     func() error { return os.Link(os.Args[0], at) },
		"a socket": func() error {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: at})
			if err != nil {
				return err
			}
			ln.SetUnlinkOnClose(false)
			return ln.Close()
		},
		"a mount": func() error {
			t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
			return errors.Join(os.Mkdir(at, 0o700), unix.Mount(victim, at, "", unix.MS_BIND, ""))
		},
	} {
		if err := put(); err != nil {
			if what == "a hard link" && errors.Is(err, unix.EXDEV) {
				continue
			}
			fixture.RequireMount(t, err) // to mount, or to make a device
		}
		mode, _, gid := ownership(t, at)
		changed := false
		err := wantNoWait(t, what, func() (err error) { changed, err = d.ShareDir("x", sharedGID); return })
		if changed || err != nil && !durable.IsNotDirBeneath(err) {
			t.Errorf("%s: got %v, %v", what, changed, err)
		}
		if now, _, group := ownership(t, at); now != mode || group != gid {
			t.Errorf("%s: it became %v of group %d", what, now, group)
		}
		unix.Unmount(at, unix.MNT_DETACH)
		fixture.Must(t, os.RemoveAll(at))
	}
	for _, name := range []string{"", ".", "..", "a/b", "/"} {
		if changed, err := d.ShareDir(name, sharedGID); changed || err == nil {
			t.Errorf("%q: got %v, %v", name, changed, err)
		}
	}
	if mode, _, gid := ownership(t, victim); mode != 0o700 || gid != 0 {
		t.Errorf("what the links led to became %v of group %d", mode, gid)
	}
}

// TestSharingSurvivesExchangedNames: a directory and a link are exchanged continuously.
func TestSharingSurvivesExchangedNames(t *testing.T) {
	const rounds = 20_000
	d, path := openSharable(t)
	victim := t.TempDir()
	fixture.Must(t, os.Chmod(victim, 0o700))
	x, y := filepath.Join(path, "x"), filepath.Join(path, "y")
	fixture.Must(t, os.Mkdir(x, 0o700))
	fixture.Must(t, os.Symlink(victim, y))
	own, err := os.Open(x)
	fixture.Must(t, err)
	defer own.Close()
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			err := unix.Renameat2(unix.AT_FDCWD, x, unix.AT_FDCWD, y, unix.RENAME_EXCHANGE)
			if n%10 == 0 { // or it is shared once, and nothing remains to be done
				err = errors.Join(err, own.Chown(-1, 0), own.Chmod(0o700))
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	shared, refused := 0, 0
	for n := 0; n < rounds || shared == 0 || refused == 0; n++ {
		switch changed, err := d.ShareDir("x", sharedGID); {
		case changed:
			shared++
		case err != nil && !durable.IsNotDirBeneath(err):
			t.Fatal(err)
		case err != nil:
			refused++
		}
		if n > 100*rounds {
			t.Fatalf("shared %d times, refused %d times: the names are not exchanged", shared, refused)
		}
	}
	close(stop)
	fixture.Must(t, <-ended)
	if mode, _, gid := ownership(t, victim); mode != 0o700 || gid != 0 {
		t.Errorf("what the link led to became %v of group %d", mode, gid)
	}
}
