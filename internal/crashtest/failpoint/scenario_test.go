package failpoint_test

import (
	"crypto/tls"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// scenario is an operation of one program, and the state that it starts from.
type scenario struct {
	name    string
	shipper bool   // the program that may fail
	whole   bool   // also covers the steps of an ordinary start
	only    string // a regular expression for the steps to cover; "" for all
	lab     func(t *testing.T) (*labtest.Lab, *labtest.Host)
	// ill means that the initial state breaks an invariant, which the operation repairs.
	ill bool
	// work runs the operation with a program that may fail. It returns the program's exit code, or
	// running if that is a receiver that has not ended.
	work func(t *testing.T, l *labtest.Lab, h *labtest.Host) int
	dir  func(l *labtest.Lab, h *labtest.Host) string // of the program's configuration
	// after completes the operation with a healthy program if another pass does not.
	after func(t *testing.T, l *labtest.Lab, h *labtest.Host)
	// toleratesFaults means that a storage fault ends no program: what failed is not part of custody,
	// and is tried again.
	toleratesFaults bool
	// fewer is how many rows may be missing: a row about a repair, if that was interrupted,
	// since the first row is still correct.
	fewer int
	code  int // of the pass in the end
	rows  int // in the end
}

// running replaces the exit code of a program that still runs.
const running = -2

// idleReceiver and idleShipper start in a directory that they have used before, and find
// nothing to do.
var (
	idleReceiver = scenario{lab: newStoredLab, work: runReceiver, dir: receiverDir}
	idleShipper  = scenario{lab: newIdleLab, work: runPass, dir: hostDir, shipper: true}
)

var scenarios = []scenario{
	{name: "receiver stores", whole: true, lab: newFreshLab, work: runReceiver, dir: receiverDir, rows: 1},
	{name: "receiver recovers", lab: newRowlessLab, work: runReceiver, dir: receiverDir, rows: 2},
	{name: "receiver stores it again", lab: newResentLab, work: runReceiver, dir: receiverDir, rows: 1, ill: true},
	{name: "receiver cuts a torn tail", lab: newTornLab, work: runReceiver, dir: receiverDir, rows: 2, ill: true},
	{name: "receiver replaces a corrupt archive", lab: newCorruptLab, work: runReceiver, dir: receiverDir, rows: 2, fewer: 1, ill: true},
	{name: "receiver stores pieces", lab: newSealedLab, work: runReceiverInPieces, dir: receiverDir, rows: 1},
	{name: "receiver continues an upload", lab: newPartialLab, work: runReceiver, dir: receiverDir, rows: 1},
	{name: "receiver drops an old part", lab: newExpiredPartLab, work: runReceiver, dir: receiverDir, rows: 1},
	{name: "shipper ships", whole: true, lab: withReceiver(newFreshLab), work: runPass, dir: hostDir, rows: 1, shipper: true},
	{name: "shipper holds", lab: withReceiver(newUnpackableLab), work: runPass, dir: hostDir, code: 3, shipper: true},
	{name: "shipper prunes", lab: newVerifiedLab, work: runPrune, after: pruneToEnd, dir: hostDir, rows: 1, shipper: true, ill: true},
	{name: "shipper joins", whole: true, lab: newInvitedLab, work: runJoin, after: joinToEnd, dir: hostDir, rows: 1, shipper: true},
	{name: "receiver lets a host join", lab: unstarted(newInvitedLab), work: runReceiverAndJoin, after: joinToEnd, dir: receiverDir, rows: 1},
	{name: "shipper renews", lab: newAgedLab, work: runPass, after: renewToEnd, only: renewalSteps, toleratesFaults: true, dir: hostDir, rows: 1, shipper: true},
	{name: "receiver renews a host", lab: unstarted(newAgedLab), work: runReceiverAndPass, after: renewToEnd, only: renewalSteps, dir: receiverDir, rows: 1},
	{name: "receiver renews itself", lab: newAgedReceiverLab, work: runReceiver, after: renewsItself, only: renewalSteps, toleratesFaults: true, dir: receiverDir, rows: 1},
	{name: "receiver is set up", lab: withReceiver(newFreshLab), work: runSetup, after: setupToEnd, only: setupSteps, dir: setupDir, rows: 1},
	{name: "receiver rotates its CAs", lab: unstarted(newJoinedLab), work: runRotate, after: rotateToEnd, only: rotationSteps, dir: receiverDir, rows: 1},
	{name: "receiver finishes a rotation", lab: newRotatedLab, work: runFinish, after: finishToEnd, only: rotationSteps, dir: receiverDir, rows: 1},
	{name: "shipper follows a rotation", lab: newRotatingLab, work: runPass, after: followToEnd, only: renewalSteps, toleratesFaults: true, dir: hostDir, rows: 1, shipper: true},
	{name: "shipper drops an orphan", lab: withReceiver(newOrphanLab), work: runPass, dir: hostDir, rows: 1, shipper: true},
}

func receiverDir(l *labtest.Lab, _ *labtest.Host) string { return l.Dir }
func hostDir(_ *labtest.Lab, h *labtest.Host) string     { return h.Dir }

// runReceiver starts a receiver and sends it all waiting episodes.
func runReceiver(t *testing.T, l *labtest.Lab, h *labtest.Host) int {
	return runReceiverAfter(t, l, h, func() {})
}

// runReceiverInPieces is like [runReceiver] for an upload whose first piece was sent before.
func runReceiverInPieces(t *testing.T, l *labtest.Lab, h *labtest.Host) int {
	return runReceiverAfter(t, l, h, func() { sendPiece(t, h) })
}

// runReceiverAfter is like [runReceiver], but calls before first.
func runReceiverAfter(t *testing.T, l *labtest.Lab, h *labtest.Host, before func()) int {
	return runReceiverWith(t, l, func() {
		if hasWaiting(t, h) {
			before()
			h.Once() // its result does not matter
		}
	})
}

// runReceiverAndPass starts a receiver, and makes a pass of the host.
func runReceiverAndPass(t *testing.T, l *labtest.Lab, h *labtest.Host) int {
	return runReceiverWith(t, l, func() { h.Once() })
}

// runReceiverWith starts a receiver, and calls use if it serves.
func runReceiverWith(t *testing.T, l *labtest.Lab, use func()) int {
	p := l.StartUnready()
	listens := regexp.MustCompile(`INFO receiver started.* listen=(\S+)`)
	labtest.Eventually(t, "the receiver is ready or has ended", func() bool {
		return !p.Running() || listens.MatchString(p.Output())
	})
	if m := listens.FindStringSubmatch(p.Output()); m != nil {
		l.Proxy.Forward(m[1])
		use()
	}
	if p.Running() {
		return running
	}
	return p.Wait(t)
}

func hasWaiting(t *testing.T, h *labtest.Host) bool {
	left, err := os.ReadDir(h.Episodes())
	fixture.Must(t, err)
	return len(left) > 0
}

// runPass makes one pass.
func runPass(t *testing.T, _ *labtest.Lab, h *labtest.Host) int {
	p := h.Launch("--once", "--json")
	code := p.Wait(t)
	if code != 0 {
		h.Kill(p) // what is delivered may still be in the outbox
	}
	return code
}

// newInvitedLab returns a lab with a host that is invited, has a waiting episode, and nothing else.
func newInvitedLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l := labtest.New(t, labtest.Unstarted())
	l.SetUp()
	h := l.Newcomer("lab-01")
	h.Episode("run-1")
	fixture.WriteFile(t, h.Path("token"), l.Invite("lab-01"))
	l.Start()
	return l, h
}

// unstarted kills the receiver of a lab.
func unstarted(lab func(t *testing.T) (*labtest.Lab, *labtest.Host)) func(t *testing.T) (*labtest.Lab, *labtest.Host) {
	return func(t *testing.T) (*labtest.Lab, *labtest.Host) {
		l, h := lab(t)
		l.Kill()
		return l, h
	}
}

// runJoin lets the host join.
func runJoin(t *testing.T, _ *labtest.Lab, h *labtest.Host) int {
	return h.Launch("join", "--token-file", h.Path("token")).Wait(t)
}

// runReceiverAndJoin starts a receiver, and lets the host join.
func runReceiverAndJoin(t *testing.T, l *labtest.Lab, h *labtest.Host) int {
	return runReceiverAfter(t, l, h, func() { h.Run("join", "--token-file", h.Path("token")) })
}

// joinToEnd joins again with the same token, which must give the host a certificate whatever
// failed before.
func joinToEnd(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	l.Kill() // one whose turn to fail has not come would fail now
	l.Start()
	h.Run("join", "--token-file", h.Path("token")).MustExit(t, 0)
	text := fixture.ReadFile(t, h.Path("lab-host.toml"))
	fixture.WriteFile(t, h.Path("lab-host.toml"), "settle = \"0s\"\n"+text)
}

// renewalSteps are those in an identity directory. The others are steps of any start and any pass.
const renewalSteps = `identity|host|issued|server\.pem|\.crt|lab-01\.json`

// age is that of a certificate that should have been renewed.
const age = 300 * 24 * time.Hour

// newAgedLab returns a lab with a host whose certificate must be renewed, and whose episode is
// delivered.
func newAgedLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newJoinedLab(t)
	h.AgeCertificate(age)
	return l, h
}

// newJoinedLab returns a lab with a host that has joined, and whose episode is delivered.
func newJoinedLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newInvitedLab(t)
	joinToEnd(t, l, h)
	h.Once().MustExit(t, 0)
	return l, h
}

// setupDir is of a receiver that is new, beside the lab's.
func setupDir(l *labtest.Lab, _ *labtest.Host) string {
	dir := l.Path("fresh")
	os.MkdirAll(dir, 0o755) // an error shows when it is used
	return dir
}

// setupSteps are those that others can see.
const setupSteps = `^(rename|unlink|mkdir) `

func runSetup(_ *testing.T, l *labtest.Lab, _ *labtest.Host) int {
	return l.Receiver("--config", l.Path("fresh/receiver.toml"), "setup", "--name", "localhost", "--listen", "127.0.0.1:8443").Code
}

// setupToEnd sets the receiver up again, after which it can invite hosts whatever failed before.
func setupToEnd(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	if code := runSetup(t, l, h); code != 0 {
		t.Fatalf("setup: exit code %d", code)
	}
	l.Receiver("--config", l.Path("fresh/receiver.toml"), "invite", "lab-02").MustExit(t, 0)
	l.Receiver("pki", "issue", "lab-03", "--dir", l.Path("fresh/pki"), "--out", l.Path("fresh/lab-03")).MustExit(t, 0)
	l.Receiver("--config", l.Path("fresh/receiver.toml"), "pki", "rotate").MustExit(t, 0)
}

// rotationSteps are those that something other than the command can see. The new directory is
// not used before it has its name.
const rotationSteps = `^(rename|open) (pki.*|ca-link\.crt)$|hosts-ca\.crt|server-ca|hosts-issuing\.pem|retiring|next|added-cas|^fsync pki|identity`

func runRotate(t *testing.T, l *labtest.Lab, _ *labtest.Host) int { return rotate(l) }
func runFinish(t *testing.T, l *labtest.Lab, _ *labtest.Host) int { return rotate(l, "--finish") }

func rotate(l *labtest.Lab, args ...string) int {
	return l.Receiver(append([]string{"--config", l.Path("receiver.toml"), "pki", "rotate"}, args...)...).Code
}

// newRotatingLab returns a lab whose host has not seen that the CAs are rotated.
func newRotatingLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newJoinedLab(t)
	if code := rotate(l); code != 0 {
		t.Fatalf("rotate: exit code %d", code)
	}
	l.Restart()
	h.AgeCAs()
	return l, h
}

// newRotatedLab returns a lab whose host is ready for the end of the rotation. The receiver does not
// run.
func newRotatedLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newRotatingLab(t)
	followToEnd(t, l, h)
	l.Kill()
	return l, h
}

// followToEnd makes a pass, after which the host trusts both CAs and has a new certificate whatever
// failed before.
func followToEnd(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	for range 2 { // one for the CAs, if the first was told so only while it renewed
		h.AgeCAs()
		h.AgeRenewal()
		h.Once().MustExit(t, 0)
	}
	if n := countCAs(t, h); n != 2 {
		t.Errorf("the host trusts %d CAs, want both", n)
	}
	hosts := l.Receiver("--config", l.Path("receiver.toml"), "hosts").MustExit(t, 0).Stdout
	if !strings.Contains(hosts, "1 of 1 active hosts are ready") {
		t.Errorf("the host is not ready:\n%s", hosts)
	}
}

func countCAs(t *testing.T, h *labtest.Host) int {
	return strings.Count(fixture.ReadFile(t, h.Path("identity/host-ca.crt")), "-----BEGIN")
}

// rotateToEnd begins the rotation again, after which the host follows it.
func rotateToEnd(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	l.Kill()
	if code := rotate(l); code != 0 {
		t.Fatalf("rotate: exit code %d", code)
	}
	l.Start()
	followToEnd(t, l, h)
}

// finishToEnd finishes the rotation again. Then the host and the receiver have the new CA alone.
func finishToEnd(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	l.Kill()
	if code := rotate(l, "--finish"); code != 0 && code != 1 { // 1 if it was finished before
		t.Fatalf("finish: exit code %d", code)
	}
	l.Start()
	h.AgeCAs()
	h.Once().MustExit(t, 0)
	if n := countCAs(t, h); n != 1 {
		t.Errorf("the host trusts %d CAs, want the new one", n)
	}
	for _, left := range []string{"pki-next", "pki-next.partial", "identity/retiring-hosts-ca.crt", "identity/next-hosts-ca.crt"} {
		if fixture.Exists(l.Path(left)) {
			t.Errorf("%s is left", left)
		}
	}
	for installed, from := range map[string]string{"server-issuing.pem": "ca-issuing.crt", "hosts-issuing.pem": "hosts-ca-issuing.crt"} {
		if !strings.Contains(fixture.ReadFile(t, l.Path("identity", installed)), fixture.ReadFile(t, l.Path("pki", from))) {
			t.Errorf("%s is of the former CA", installed)
		}
	}
}

// renewToEnd makes a pass, after which the host has a new certificate whatever failed before.
func renewToEnd(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	l.Kill() // one whose turn to fail has not come would fail now
	l.Start()
	h.AgeRenewal()
	h.Once().MustExit(t, 0)
	pair, err := tls.LoadX509KeyPair(h.Path("identity/host.pem"), h.Path("identity/host.pem"))
	fixture.Must(t, err)
	if left := time.Until(pair.Leaf.NotAfter); left < 364*24*time.Hour {
		t.Errorf("the certificate expires in %v: it was not renewed", left)
	}
}

// newAgedReceiverLab returns a lab whose receiver must renew its certificate, and does not run.
func newAgedReceiverLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := unstarted(newAgedLab)(t)
	_, err := ca.RenewServer(l.Path("pki"), ca.RenewOptions{Now: time.Now().Add(-age)})
	fixture.Must(t, err)
	return l, h
}

// renewsItself starts the receiver, which then has a new certificate whatever failed before.
func renewsItself(t *testing.T, l *labtest.Lab, _ *labtest.Host) {
	l.Kill()
	l.Start()
	labtest.Eventually(t, "the receiver has a new certificate", func() bool {
		pair, err := tls.LoadX509KeyPair(l.Path("identity/server.pem"), l.Path("identity/server.pem"))
		return err == nil && time.Until(pair.Leaf.NotAfter) > 364*24*time.Hour
	})
}

// runPrune deletes the retired episodes.
func runPrune(t *testing.T, _ *labtest.Lab, h *labtest.Host) int {
	return h.Launch("prune", "--max-age", "1ns").Wait(t)
}

// pruneToEnd checks that the episode is deleted eventually. Until then it is complete or
// judged: nothing is lost that the receiver does not have.
func pruneToEnd(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	if h.IsShipped("run-1") {
		l.Check(t)
	}
	for range 2 { // the first pass restores what was not judged, and does no more
		h.Run("prune", "--max-age", "1ns").MustExit(t, 0)
	}
	if left, err := os.ReadDir(h.Outbox(".trash")); err != nil || len(left) > 0 {
		t.Errorf("left in the trash: %v, %v", left, err)
	}
	if h.IsShipped("run-1") {
		t.Error("it was not deleted")
	}
	h.Forget("run-1")
}

// newVerifiedLab returns a lab with a retired episode that the receiver has verified.
func newVerifiedLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newIdleLab(t)
	h.Run("verify").MustExit(t, 0)
	return l, h
}

func newFreshLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l := labtest.New(t, labtest.Unstarted())
	h := l.Host("lab-01")
	h.Set("report_interval", `"5m"`) // its pass also reports
	h.Episode("run-1")
	return l, h
}

func withReceiver(lab func(t *testing.T) (*labtest.Lab, *labtest.Host)) func(t *testing.T) (*labtest.Lab, *labtest.Host) {
	return func(t *testing.T) (*labtest.Lab, *labtest.Host) {
		l, h := lab(t)
		if l.Process() == nil {
			l.Start()
		}
		return l, h
	}
}

// newStoredLab returns a lab in which run-1 was delivered and the receiver was killed.
func newStoredLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := withReceiver(newFreshLab)(t)
	h.Once().MustExit(t, 0)
	l.Kill()
	return l, h
}

// newIdleLab returns a lab whose host has nothing left to ship.
func newIdleLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newStoredLab(t)
	l.Start()
	return l, h
}

// newRowlessLab returns a lab with a stored file without a row, as a crash leaves it, and a waiting
// episode.
func newRowlessLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newStoredLab(t)
	fixture.Must(t, os.Remove(l.Path("data", "index.jsonl")))
	h.ForgetStore()
	fixture.Must(t, os.Link(l.Archive("lab-01", "run-1"), l.Path("data/staging/lab-01/run-1~CRASH")))
	h.Episode("run-2")
	return l, h
}

// newResentLab returns a lab with a stored file without row and attribute, copied in by hand. The
// host has no receipt for it.
func newResentLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newStoredLab(t)
	archive := l.Archive("lab-01", "run-1")
	text := fixture.ReadFile(t, archive)
	fixture.Must(t, os.Remove(archive))
	fixture.WriteFile(t, archive, text)
	fixture.Must(t, os.Remove(l.Path("data", "index.jsonl")))
	h.ForgetStore()
	fixture.Must(t, os.Rename(h.Shipped("run-1"), h.Episodes("run-1")))
	return l, h
}

func newTornLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newStoredLab(t)
	fixture.WriteFile(t, l.Path("data", "index.jsonl"), l.Index(t)+`{"episode_id": "run-`)
	h.Episode("run-2")
	return l, h
}

// newCorruptLab returns a lab with a corrupt stored file, which its host sends again.
func newCorruptLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newStoredLab(t)
	f, err := os.OpenFile(l.Archive("lab-01", "run-1"), os.O_RDWR, 0)
	fixture.Must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("rot"), 40)
	fixture.Must(t, err)
	fixture.Must(t, os.Rename(h.Shipped("run-1"), h.Episodes("run-1")))
	return l, h
}

// newUnpackableLab returns a lab with an episode that cannot be packed.
func newUnpackableLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l := labtest.New(t, labtest.Unstarted())
	h := l.Host("lab-01")
	h.Episode("run-1", labtest.File{Name: "meta.json"})
	return l, h
}

// newOrphanLab returns a lab with a sealed entry whose episode is retired, as a crash leaves it.
func newOrphanLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newFreshLab(t)
	h.Once() // seals it; the receiver is not running
	fixture.Must(t, os.Link(h.Outbox("run-1.tar.zst"), h.Path("kept")))
	l.Start()
	h.Once().MustExit(t, 0)
	fixture.Must(t, os.Rename(h.Path("kept"), h.Outbox("run-1.tar.zst")))
	return l, h
}

// newSealedLab returns a lab with a packed archive that is large enough to be announced. The receiver
// was not reached.
func newSealedLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l := labtest.New(t, labtest.Unstarted())
	h := l.Host("lab-01")
	noise := make([]byte, 2*pieceSize)
	rand.NewChaCha8([32]byte{}).Read(noise)
	h.Episode("run-1", labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "mem.raw", Body: string(noise)})
	h.Once().MustExit(t, 4)
	return l, h
}

// pieceSize is the size of the first piece of an upload: a few writes.
const pieceSize = 300_000

// sendPiece sends the first piece of the packed archive and returns the answer, which may be an
// error.
func sendPiece(t *testing.T, h *labtest.Host) labtest.Answer {
	archive := []byte(fixture.ReadFile(t, h.Outbox("run-1.tar.zst")))
	s := h.Sender(t)
	a, err := s.Announce("run-1", archive)
	if err == nil && a.Where != "" {
		a, _ = s.Patch(a.Where, a.Offset, archive[a.Offset:min(a.Offset+pieceSize, int64(len(archive)))], false)
	}
	return a
}

// newPartialLab returns a lab with part of the packed archive in staging.
func newPartialLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := withReceiver(newSealedLab)(t)
	if a := sendPiece(t, h); a.Offset != pieceSize {
		t.Fatalf("the first piece: %s", a.Told)
	}
	l.Kill()
	return l, h
}

// newExpiredPartLab returns a lab with an expired partial upload.
func newExpiredPartLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newPartialLab(t)
	ago := time.Now().Add(-30 * 24 * time.Hour)
	for _, path := range l.Staged() {
		fixture.Must(t, os.Chtimes(path, ago, ago))
	}
	return l, h
}

// tally counts the cases.
type tally struct {
	mu     sync.Mutex
	counts map[string]map[string]int // guarded by mu; by scenario and kind
	missed int                       // guarded by mu; cases whose step was not reached
}

func newTally() *tally { return &tally{counts: make(map[string]map[string]int)} }

func (c *tally) add(scenario, kind string, reached bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !reached {
		c.missed++
		return
	}
	if c.counts[scenario] == nil {
		c.counts[scenario] = make(map[string]int)
	}
	c.counts[scenario][kind]++
}

func (c *tally) print() {
	all := 0
	for _, scenario := range slices.Sorted(maps.Keys(c.counts)) {
		fmt.Printf("%-26s", scenario)
		for _, k := range kinds {
			n := c.counts[scenario][k.name]
			fmt.Printf(" %s %d", k.name, n)
			all += n
		}
		fmt.Println()
	}
	fmt.Printf("every step failed once: %d failures, %d not reached\n", all, c.missed)
}
