package source_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/source"
)

// A lab is a source and the paths of its two folders.
type lab struct {
	testing.TB
	*source.Source
	episodes, shipped string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{TB: t, episodes: filepath.Join(dir, "episodes"), shipped: filepath.Join(dir, "shipped")}
	episodes, err := durable.Create(l.episodes)
	fixture.Must(l, err)
	shipped, err := durable.Create(l.shipped)
	fixture.Must(l, err)
	l.Source = source.New(episodes, shipped, archive.DefaultLimits())
	t.Cleanup(func() { l.Source.Close() })
	return l
}

// makeFinished makes a finished episode below dir whose content is its name.
func (l *lab) makeFinished(dir, name, says string) string {
	l.Helper()
	path := filepath.Join(dir, name)
	fixture.Must(l, os.MkdirAll(path, 0o755))
	fixture.Must(l, os.WriteFile(filepath.Join(path, "meta.json"), []byte(says), 0o644))
	fixture.Must(l, os.WriteFile(filepath.Join(path, episode.Marker), nil, 0o644))
	return path
}

// walkAll examines every name as the shipper does, and returns the finished ones and what is
// wrong with others, sorted.
func (l *lab) walkAll() (names []string, reports []string) {
	l.Helper()
	for n, err := range l.Names() {
		fixture.Must(l, err)
		if err := l.NameError(n); err != nil {
			reports = append(reports, err.Error())
			continue
		}
		finished, err := l.IsFinished(episode.Name(n))
		if err != nil {
			reports = append(reports, err.Error())
		}
		if finished {
			if _, err := episode.ParseName(n); err != nil {
				l.Errorf("%q passed as a name", n)
			}
			names = append(names, n)
		}
	}
	slices.Sort(names)
	slices.Sort(reports)
	return names, reports
}

func (l *lab) wantFinished(want ...string) {
	l.Helper()
	got, reports := l.walkAll()
	if !slices.Equal(got, want) {
		l.Errorf("finished: got %q, want %q (%q)", got, want, reports)
	}
}

// Everything that is not a finished episode, each beside one that is.
func TestFinishedIsARealDirectoryWithARegularMarker(t *testing.T) {
	marker := func(make func(path string) error) func(*lab, string) error {
		return func(l *lab, path string) error {
			fixture.Must(l, os.Mkdir(path, 0o755))
			return make(filepath.Join(path, episode.Marker))
		}
	}
	for what, make := range map[string]func(l *lab, path string) error{
		"no marker": func(_ *lab, p string) error { return os.Mkdir(p, 0o755) },
		"a file":    func(_ *lab, p string) error { return os.WriteFile(p, nil, 0o644) },
		"a link to an episode": func(l *lab, p string) error {
			return os.Symlink(l.makeFinished(t.TempDir(), "elsewhere", ""), p)
		},
		"a dangling link":  func(_ *lab, p string) error { return os.Symlink("nowhere", p) },
		"a link to itself": func(_ *lab, p string) error { return os.Symlink(filepath.Base(p), p) },
		"a FIFO":           func(_ *lab, p string) error { return unix.Mkfifo(p, 0o644) },
		"marker is a link": marker(func(p string) error { return os.Symlink("/etc/hostname", p) }),
		"marker is a dir":  marker(func(p string) error { return os.Mkdir(p, 0o755) }),
		"marker is a FIFO": marker(func(p string) error { return unix.Mkfifo(p, 0o644) }),
		"marker is a socket": marker(func(p string) error {
			s, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
			if err == nil {
				s.SetUnlinkOnClose(false)
				err = s.Close()
			}
			return err
		}),
		"marker below": func(l *lab, p string) error { l.makeFinished(p, "below", ""); return nil },
		"marker with another ending": func(_ *lab, p string) error {
			return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "done.marker.tmp"), nil, 0o644))
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.makeFinished(l.episodes, "good", "")
			fixture.Must(l, make(l, filepath.Join(l.episodes, "x")))
			l.wantFinished("good")
			if finished, err := l.IsFinished("x"); err != nil || finished {
				t.Errorf("IsFinished: %v, %v", finished, err)
			}
		})
	}
}

func TestAMarkerMayHaveBytes(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, os.WriteFile(filepath.Join(l.makeFinished(l.episodes, "run-7", ""), episode.Marker), []byte("done"), 0o644))
	l.wantFinished("run-7")
	if finished, err := l.IsFinished("run-8"); err != nil || finished {
		t.Errorf("an episode that is not there: %v, %v", finished, err)
	}
}

// An episode that is a mount of its own is found, and cannot be moved: the error tells the
// operator what to do. A mount without a marker is like any other folder without one.
func TestAnotherFileSystemIsNotPacked(t *testing.T) {
	fixture.RequireRoot(t)
	l := newLab(t)
	mounted := filepath.Join(l.episodes, "mounted")
	fixture.Must(l, os.Mkdir(mounted, 0o755))
	if err := unix.Mount("none", mounted, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(mounted, unix.MNT_DETACH) })
	l.makeFinished(l.episodes, "good", "")
	l.wantFinished("good")
	l.makeFinished(l.episodes, "mounted", "")
	l.wantFinished("good", "mounted")
	_, err := l.OpenTree("mounted")
	if unfit, ok := errors.AsType[*archive.UnpackableError](err); !ok || !strings.Contains(unfit.Cause, "cp -a") {
		t.Errorf("it is opened: %v", err)
	}
}

func TestABadNameIsReportedAndTheWalkContinues(t *testing.T) {
	l := newLab(t)
	bad := []string{".hidden", "-dash", "a b", "new\nline", "esc\x1b[31m", "\xff\xfe", "ü", "a~2", strings.Repeat("n", 129), `q"uote`}
	for _, n := range bad {
		l.makeFinished(l.episodes, n, "")
	}
	fixture.Must(l, os.Mkdir(filepath.Join(l.episodes, ".still being made"), 0o755))
	l.makeFinished(l.episodes, "good-1", "")
	l.makeFinished(l.episodes, "zgood-2", "")
	names, reports := l.walkAll()
	if !slices.Equal(names, []string{"good-1", "zgood-2"}) || len(reports) != len(bad) {
		t.Errorf("got %q and %d reports %q, want %d", names, len(reports), reports, len(bad))
	}
	for _, e := range reports {
		if strings.ContainsFunc(e, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("not printable ASCII: %+q", e)
		}
	}
	for range l.Names() {
		break // an iteration that stops early is not called again
	}
}

func TestTheFoldersOwnErrorEndsTheWalk(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.Source.Close())
	n := 0
	for _, err := range l.Names() {
		n++
		if err == nil {
			t.Error("got a name, want an error of the folder")
		}
	}
	if n != 1 {
		t.Errorf("yielded %d times", n)
	}
}

func TestRetireNeverReplaces(t *testing.T) {
	l := newLab(t)
	for _, says := range []string{"first", "second", "third"} {
		l.makeFinished(l.episodes, "run-7", says)
		fixture.Must(l, l.Retire("run-7", nil, source.State{}))
		l.wantFinished()
	}
	fixture.Must(l, os.WriteFile(filepath.Join(l.shipped, "run-8"), []byte("a file"), 0o644))
	l.makeFinished(l.episodes, "run-8", "fourth")
	fixture.Must(l, l.Retire("run-8", nil, source.State{}))
	for name, want := range map[string]string{"run-7": "first", "run-7~2": "second", "run-7~3": "third", "run-8~2": "fourth"} {
		b, err := os.ReadFile(filepath.Join(l.shipped, name, "meta.json"))
		if err != nil || string(b) != want {
			t.Errorf("%s says %q, %v, want %q", name, b, err, want)
		}
		if _, err := os.Stat(filepath.Join(l.shipped, name, episode.Marker)); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(l.shipped, "run-8")); err != nil || string(b) != "a file" {
		t.Errorf("the file in the way says %q, %v", b, err)
	}
}

func TestRetiringNothingIsNotExist(t *testing.T) {
	l := newLab(t)
	if err := l.Retire("run-7", nil, source.State{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := l.OpenTree("run-7"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Tree: got %v", err)
	}
}

// TestOfAnotherUser runs the tests below as an unprivileged user, for whom permissions count.
func TestOfAnotherUser(t *testing.T) {
	fixture.RequireRoot(t)
	dir, err := os.MkdirTemp("", "source-test")
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	fixture.Must(t, err)
	binary, err := os.ReadFile(self)
	fixture.Must(t, err)
	// go test keeps the binary where other users have no access.
	child := filepath.Join(dir, "source.test")
	fixture.Must(t, errors.Join(os.Chmod(dir, 0o755), os.WriteFile(child, binary, 0o755)))
	for _, name := range []string{"TestRetireExplainsMissingPermissions", "TestUnreadableDirectoryIsReportedWithoutRoot"} {
		t.Run(name, func(t *testing.T) { runAsNobody(t, child, name) })
	}
}

func runAsNobody(t *testing.T, binary, name string) {
	const nobody = 65534
	lab := filepath.Join(t.TempDir(), "lab")
	if err := errors.Join(os.MkdirAll(filepath.Join(lab, "episodes", "foreign"), 0o755), os.Mkdir(filepath.Join(lab, "shipped"), 0o755),
		os.Mkdir(filepath.Join(lab, "episodes", "closed"), 0o700), os.Mkdir(filepath.Join(lab, "episodes", "good"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"foreign", "closed", "good"} {
		fixture.Must(t, os.WriteFile(filepath.Join(lab, "episodes", n, episode.Marker), nil, 0o644))
	}
	for _, path := range []string{lab, filepath.Join(lab, "episodes"), filepath.Join(lab, "shipped"), filepath.Join(lab, "episodes", "good")} {
		fixture.Must(t, os.Chown(path, nobody, nobody))
	}
	for dir := lab; dir != os.TempDir(); dir = filepath.Dir(dir) {
		fixture.Must(t, os.Chmod(dir, 0o755))
	}
	cmd := exec.Command(binary, "-test.run=^"+name+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "SOURCE_TEST_LAB="+lab)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+name) {
		t.Errorf("%v\n%s", err, out)
	}
}

// nobodysLab opens what [runAsNobody] has made.
func nobodysLab(t *testing.T) *source.Source {
	dir := os.Getenv("SOURCE_TEST_LAB")
	if dir == "" {
		t.Skip("run by TestOfAnotherUser")
	}
	episodes, err := durable.Open(filepath.Join(dir, "episodes"))
	fixture.Must(t, err)
	shipped, err := durable.Open(filepath.Join(dir, "shipped"))
	fixture.Must(t, err)
	s := source.New(episodes, shipped, archive.DefaultLimits())
	t.Cleanup(func() { s.Close() })
	return s
}

// Moving a directory to another parent needs write permission on the directory itself, which
// surprises people: the error must say it.
func TestRetireExplainsMissingPermissions(t *testing.T) {
	s := nobodysLab(t)
	err := s.Retire("foreign", nil, source.State{})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(fmt.Sprint(err), "must own the episode, or share its group") {
		t.Errorf("got %v, want %v and %q in it", err, fs.ErrPermission, "must own the episode, or share its group")
	}
	if finished, err := s.IsFinished("foreign"); err != nil || !finished {
		t.Errorf("it is not where it was: %v, %v", finished, err)
	}
}

func TestUnreadableDirectoryIsReportedWithoutRoot(t *testing.T) {
	s := nobodysLab(t)
	l := &lab{TB: t, Source: s}
	names, reports := l.walkAll()
	if !slices.Equal(names, []string{"foreign", "good"}) || len(reports) != 1 {
		t.Fatalf("got %q and the reports %q", names, reports)
	}
	if _, err := s.IsFinished("closed"); !errors.Is(err, fs.ErrPermission) || !strings.Contains(reports[0], "closed") {
		t.Errorf("the report does not say what: %q, %v", reports[0], err)
	}
}
