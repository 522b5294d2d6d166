package labtest_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// archiveSize is the approximate size of the archives of these tests: noise does not compress.
const archiveSize = 24 << 20

// maxResent is how much may be sent twice per fault: what was in the buffers of the kernels, the
// proxy and TLS.
const maxResent = 6 << 20

// TestUploadSurvivesAnyNumberOfCuts, in one pass, and little is sent twice.
func TestUploadSurvivesAnyNumberOfCuts(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	makeLargeEpisode(t, h, "large", archiveSize)
	const cuts = 8
	faults := make([]labtest.Fault, cuts)
	for i := range faults {
		faults[i].CutAfter = 2_500_000 + int64(i)*137_003
	}
	l.Proxy.Next(faults...)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if n := l.Proxy.Accepted(); n <= cuts {
		t.Errorf("%d connections for %d cuts", n, cuts)
	}
	sent := l.Proxy.Sent()
	t.Logf("%d cuts: %d bytes sent for an archive of %d", cuts, sent, archiveSize)
	if most := int64(archiveSize + cuts*maxResent); sent > most {
		t.Errorf("%d bytes were sent for an archive of %d, want at most %d after %d cuts", sent, archiveSize, most, cuts)
	}
	l.Settled(t)
}

// TestLostAnswerToTheLastPieceCostsNoByte: the receiver has everything, but the answer is lost.
// The sender asks, and gets it.
func TestLostAnswerToTheLastPieceCostsNoByte(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	makeLargeEpisode(t, h, "large", archiveSize)
	l.Proxy.Next(labtest.Fault{LoseBehind: archiveSize})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1})
	if sent := l.Proxy.Sent(); sent > archiveSize+archiveSize/16 {
		t.Errorf("%d bytes were sent for an archive of %d", sent, archiveSize)
	}
	if n := l.Proxy.Accepted(); n != 2 {
		t.Errorf("%d connections, want one more than there are answers lost", n)
	}
	l.RowOf(t, "lab-01", "large")
	l.Settled(t)
}

// TestUploadOutlivesEitherProgram: a pass continues where an earlier one ended, whichever
// program ended.
func TestUploadOutlivesEitherProgram(t *testing.T) {
	t.Parallel()
	for who, c := range map[string]struct {
		end  func(l *labtest.Lab, p *labtest.Process)
		kept int // bytes that need not be sent again, at least
	}{
		"shipper killed":   {func(_ *labtest.Lab, p *labtest.Process) { p.Shoot() }, archiveSize/2 - maxResent},
		"receiver stopped": {func(l *labtest.Lab, _ *labtest.Process) { l.Process().Signal(t, syscall.SIGTERM) }, archiveSize/2 - maxResent},
		// One checkpoint per second means one per 6 MB at this rate.
		"receiver killed": {func(l *labtest.Lab, _ *labtest.Process) { l.Process().Shoot() }, archiveSize/2 - maxResent - 6<<20},
		"both killed":     {func(l *labtest.Lab, p *labtest.Process) { l.Process().Shoot(); p.Shoot() }, archiveSize/2 - maxResent - 6<<20},
	} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			l, h := newLab(t)
			makeLargeEpisode(t, h, "large", archiveSize)
			l.Proxy.Always(labtest.Fault{Rate: 6 << 20})
			p := h.Launch("--once")
			l.Proxy.After(archiveSize/2, func() { c.end(l, p) })
			labtest.Eventually(t, "one of them ends", func() bool { return !p.Running() || !l.Process().Running() })
			h.Kill(p)
			l.Proxy.Sever() // also half a connection through the proxy
			if who != "shipper killed" {
				l.Process().Wait(t)
				l.Start()
			}
			l.Check(t)
			l.Proxy.Always(labtest.Fault{})
			before := l.Proxy.Sent()
			h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
			if again := l.Proxy.Sent() - before; again > int64(archiveSize-c.kept) {
				t.Errorf("%d bytes were sent again of %d, want at most %d", again, archiveSize, archiveSize-c.kept)
			}
			l.Settled(t)
		})
	}
}

// TestDeadConnectionGivesItsUploadUp: a new request does not wait for the stalled connection.
func TestDeadConnectionGivesItsUploadUp(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Set("limits.uploads_per_host", "1"))
	makeLargeEpisode(t, h, "large", archiveSize)
	l.Proxy.Next(labtest.Fault{StallAfter: archiveSize / 2})
	p := h.Launch("--once")
	labtest.Eventually(t, "half of it is there", func() bool {
		for _, path := range l.Staged() {
			if info, err := os.Stat(path); err == nil && info.Size() > archiveSize/2-1<<20 {
				return true
			}
		}
		return false
	})
	p.Signal(t, syscall.SIGSTOP) // its connections live on
	removeLocks(t, h)            // as if another machine had taken its place
	before := l.Proxy.Sent()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if again := l.Proxy.Sent() - before; again > archiveSize/2+maxResent {
		t.Errorf("%d bytes were sent again of %d", again, archiveSize)
	}
	h.Kill(p)
	l.Settled(t)
}

// removeLocks removes the lock files, so that no process seems to hold the state directory.
func removeLocks(t *testing.T, h *labtest.Host) {
	t.Helper()
	for _, name := range []string{".shipper.lock", ".lock"} {
		fixture.Must(t, os.Remove(h.Outbox(name)))
	}
}

// TestPartOfAnUploadIsDurableBeforeItIsAcknowledged: first the bytes, then the attribute with the
// offset, then the answer with it.
func TestPartOfAnUploadIsDurableBeforeItIsAcknowledged(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Unstarted())
	packByHand(t, h, "run-1")
	archive := fixture.ReadFile(t, filepath.Join(filepath.Dir(h.Dir), "run-1.tar.zst"))
	tr := receiverTrace(t, l, func() {
		up := announceByHand(t, h, "run-1", archive)
		up.patch(t, 0, 100, false, http.StatusNoContent)
		up.patch(t, 100, len(archive), true, http.StatusCreated)
	})
	body := tr.eachStep("the body", written, staged+">")
	first := body.firstCall()
	bytes := tr.eachStep("fdatasync of the part", "fdatasync", staged+">").firstCall()
	attr := tr.eachStep("the attribute", "fsetxattr", staged+`>, "user\.cis490\.upload"`).firstCall()
	wantOrder(t, first, bytes, attr, tr.syncStep("the part", staged), tr.eachStep("the link", "linkat", `run-1~\w+.*"run-1\.tar\.zst"`))
	// No answer comes between the first byte and the attribute, nor between that and
	// its sync.
	for _, c := range tr.answerStep(first).calls {
		if c.Begin < attr.calls[0].End {
			t.Errorf("the receiver answered before the part was durable: %s(%s)", c.Name, c.Args)
			break
		}
	}
	wantOrder(t, attr, tr.syncStep("the part", staged), tr.answerStep(attr))
	// So is its name.
	name := tr.eachStep("the name of the part", "openat", `/data/staging/lab-01>, "run-1~.*O_CREAT`)
	wantOrder(t, name, tr.syncStep("the folder of the part", "/data/staging/lab-01"), attr)
	l.Settled(t)
}

// pieceUpload are an upload that a test makes by hand.
type pieceUpload struct {
	*labtest.Sender
	where   string // as announced
	archive []byte
}

// announceByHand announces an archive without a shipper.
func announceByHand(t *testing.T, h *labtest.Host, name, archive string) pieceUpload {
	t.Helper()
	up := pieceUpload{Sender: h.Sender(t), archive: []byte(archive)}
	a, err := up.Announce(name, up.archive)
	wantAnswer(t, "the announcement", a, err, http.StatusCreated)
	up.where = a.Where
	return up
}

// patch sends archive[from:to].
func (u pieceUpload) patch(t *testing.T, from, to int, last bool, status int) labtest.Answer {
	t.Helper()
	a, err := u.Patch(u.where, int64(from), u.archive[from:to], last)
	wantAnswer(t, "the piece", a, err, status)
	return a
}

// wantAnswer checks the status of an answer.
func wantAnswer(t *testing.T, what string, a labtest.Answer, err error, status int) {
	t.Helper()
	if err != nil || a.Status != status {
		t.Fatalf("%s: %v, %s, want %d", what, err, a.Told, status)
	}
}

// TestCurlCanResume runs the commands of docs/transport.md as they are printed there.
func TestCurlCanResume(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	packByHand(t, h, "run-9")
	dir := filepath.Dir(h.Dir)
	doc := fixture.ReadFile(t, "../../docs/transport.md")
	_, script, found := strings.Cut(doc, "<!-- labtest runs this -->\n```sh\n")
	script, _, ended := strings.Cut(script, "```")
	if !found || !ended {
		t.Fatal("docs/transport.md has lost its example")
	}
	out := runShell(t, "cd \"$1\"\n"+strings.NewReplacer(
		"https://receiver.lab:8443", l.URL(""), "lab-01.crt", h.Path("pki", "lab-01.crt"), "lab-01.key", h.Path("pki", "lab-01.key"),
		"ca.crt", h.Path("pki", "ca.crt"),
	).Replace(script), dir)
	mustContain(t, "curl", out, `"status":"stored"`, `"episode_id":"run-9"`)
	l.RowOf(t, "lab-01", "run-9")
}
