package labtest_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// The order of system calls, by strace. It decides which states power loss can leave. A
// power-loss test seldom catches a directory that was not synced, because the file system's
// journal hides it; the order shows it each time.

// step is one step of a sequence, and its calls.
type step struct {
	what  string
	calls []labtest.Call
	// some is for syncs, which may also happen at other times: at least one of the calls must
	// be at this place. Otherwise all must.
	some bool
}

// wantOrder checks that each step returned before the next one began.
func wantOrder(t *testing.T, steps ...step) {
	t.Helper()
	var before *labtest.Call
	after := "nothing"
	for _, s := range steps {
		var last *labtest.Call
		for i, c := range s.calls {
			if before != nil && !before.Before(c) {
				if s.some {
					continue
				}
				t.Errorf("%q was begun before %q had returned: %s(%s)", s.what, after, c.Name, c.Args)
				return
			}
			last = &s.calls[i]
			if s.some {
				break
			}
		}
		if last == nil {
			t.Errorf("%q does not follow %q", s.what, after)
			return
		}
		before, after = last, s.what
	}
}

// trace is a trace with the calls that the invariants are about.
type trace []labtest.Call

func (tr trace) eachStep(what, names, args string) step {
	return step{what: what, calls: labtest.Find(tr, names, args)}
}

func (tr trace) syncStep(what, path string) step {
	return step{what: "sync of " + what, calls: labtest.Find(tr, "fsync", path+">$"), some: true}
}

const written = "write|pwrite64|writev|splice|sendfile|copy_file_range"

// How strace prints descriptors of these files.
const (
	staged    = `/data/staging/lab-01/run-1~\w+`
	hostDir   = `/data/episodes/lab-01`
	indexFile = `/data/index\.jsonl`
	partial   = `/data/outbox/run-1\.tar\.zst\.partial`
	socket    = `<(socket|TCP):?\[`
)

// answerStep is the step in which a receiver answers: its writes to the network after it has begun
// to receive the body, or otherwise after from.
func (tr trace) answerStep(from step) step {
	s := step{what: "the answer"}
	for _, c := range labtest.Find(tr, written, `^\d+`+socket) {
		if len(from.calls) > 0 && from.calls[0].Before(c) {
			s.calls = append(s.calls, c)
		}
	}
	return s
}

// receiverTrace returns what the receiver did while act ran.
func receiverTrace(t *testing.T, l *labtest.Lab, act func()) trace {
	t.Helper()
	tr := labtest.NewTrace(t)
	l.Trace(tr)
	l.Start()
	act()
	l.Stop()
	return tr.Calls(t)
}

func TestReceiverMakesEachStepDurableBeforeTheNext(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Unstarted())
	h.Episode("run-1")
	tr := receiverTrace(t, l, func() { h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1}) })
	body := tr.eachStep("the body", written, staged+">")
	row := tr.eachStep("the row", written, indexFile+">")
	durableRow := tr.eachStep("fdatasync of the index", "fdatasync", indexFile+">")
	link := tr.eachStep("the link", "linkat", staged[strings.LastIndex(staged, "/")+1:]+`.*"run-1\.tar\.zst"`)
	answer := tr.answerStep(body)

	wantOrder(t, body, tr.syncStep("the archive", staged), link, tr.syncStep("the host's folder", hostDir), row, durableRow, answer)
	wantOrder(t, body, tr.eachStep("the attribute", "fsetxattr", staged+`>, "user\.cis490\.receipt"`).firstCall(), tr.syncStep("the archive", staged))
	// One link left means that the row is durable.
	wantOrder(t, durableRow, tr.eachStep("the unlink of the staging name", "unlinkat", `/data/staging/lab-01>, "run-1~`))
	// A new host's folders are there before anything is in them.
	wantOrder(t, tr.eachStep("mkdir", "mkdirat", `/data/episodes>, "lab-01"`), tr.syncStep("episodes", "/data/episodes"), link)
	wantOrder(t, tr.eachStep("mkdir", "mkdirat", `/data/staging>, "lab-01"`), tr.syncStep("staging", "/data/staging"), body)
	// So is the index, and the data directory itself.
	wantOrder(t, tr.eachStep("creation of the index", "openat", `/data>, "index\.jsonl".*O_CREAT`).firstCall(), tr.syncStep("data", l.Dir+"/data"),
		tr.eachStep("a rename in data, which has a sync of its own", "renameat", `/data>, "`).firstCall(), answer)
	wantOrder(t, tr.eachStep("mkdir", "mkdirat", l.Dir+`>, "data"`), tr.syncStep("the parent of data", l.Dir), answer)
	for _, name := range []string{"episodes", "staging"} {
		wantOrder(t, tr.eachStep("mkdir", "mkdirat", `/data>, "`+name+`"`), tr.syncStep("data", l.Dir+"/data"), answer)
	}
	if calls := labtest.Find(tr, "rename|renameat|renameat2", "/data/episodes"); len(calls) > 0 {
		t.Errorf("what is published by a rename may replace: %v", calls)
	}
	l.Settled(t)
}

// firstCall keeps the first call of a step that may be repeated.
func (s step) firstCall() step {
	s.calls = s.calls[:min(1, len(s.calls))]
	return s
}

func TestReceiverSyncsAtStartWhatAKilledOneMade(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	l.Stop() // the folders exist: nothing is created again
	tr := receiverTrace(t, l, func() { h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1}) })
	body := tr.eachStep("the body", written, staged+">")
	for what, path := range map[string]string{"episodes": "/data/episodes", "staging": "/data/staging", "data": l.Dir + "/data"} {
		sync := tr.syncStep(what, path)
		sync.calls = sync.firstCall().calls
		wantOrder(t, sync, body)
	}
	l.Settled(t)
}

// loseRow makes run-1 a stored file whose row is missing, with a staging name as a
// crash leaves it, or without.
func loseRow(t *testing.T, l *labtest.Lab, h *labtest.Host, staging bool) {
	t.Helper()
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Kill()
	archive := l.Archive("lab-01", "run-1")
	bytes := fixture.ReadFile(t, archive)
	fixture.Must(t, os.Remove(l.Path("data", "index.jsonl")))
	h.ForgetStore()
	if staging {
		fixture.Must(t, os.Link(archive, l.Path("data/staging/lab-01/run-1~CRASH")))
		return
	}
	if err := os.Remove(archive); err != nil { // and its attribute with it
		t.Fatal(err)
	}
	fixture.WriteFile(t, archive, bytes)
}

func TestRecoverySyncsTheFolderBeforeItWritesARow(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	loseRow(t, l, h, true)
	tr := receiverTrace(t, l, func() {})
	wantOrder(t, tr.syncStep("the host's folder", hostDir), tr.eachStep("the row", written, indexFile+">"),
		tr.eachStep("fdatasync of the index", "fdatasync", indexFile+">"),
		tr.eachStep("the unlink of the staging name", "unlinkat", `/data/staging/lab-01>, "run-1~`))
	l.Settled(t)
}

func TestAlreadyPresentSyncsTheFolderBeforeItWritesARow(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	loseRow(t, l, h, false)
	fixture.Must(t, os.Rename(h.Shipped("run-1"), h.Episodes("run-1")))
	tr := receiverTrace(t, l, func() { h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1}) })
	folder, row := tr.syncStep("the host's folder", hostDir), tr.eachStep("the row", written, indexFile+">")
	wantOrder(t, folder, row, tr.eachStep("fdatasync of the index", "fdatasync", indexFile+">"), tr.answerStep(row))
	l.Settled(t)
}

// shipperTrace returns what a pass did.
func shipperTrace(t *testing.T, h *labtest.Host, code int) trace {
	t.Helper()
	tr := labtest.NewTrace(t)
	h.TracedOnce(tr).MustExit(t, code)
	return tr.Calls(t)
}

func TestShipperMakesEachStepDurableBeforeTheNext(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	tr := shipperTrace(t, h, 0)
	call := tr.eachStep("the call of the receiver", "connect", "AF_INET")
	sent := tr.eachStep("the upload", written, `^\d+`+socket)
	move := tr.eachStep("the move to the shipped folder", "renameat2", `/data/episodes>, "run-1", .*/data/shipped>, "run-1", RENAME_NOREPLACE`)
	drop := tr.eachStep("the drop of the entry", "unlinkat", `/data/outbox>, "run-1\.tar\.zst"`)

	packed := tr.eachStep("packing", written, partial+">")
	seal := tr.eachStep("the seal", "fsetxattr", partial+`>, "user\.cis490\.seal"`)
	name := tr.eachStep("the entry's name", "renameat2", `"run-1\.tar\.zst\.partial".*"run-1\.tar\.zst", RENAME_NOREPLACE`)
	wantOrder(t, packed, seal, tr.syncStep("the entry", partial), name, tr.syncStep("the outbox", "/data/outbox"), call, sent, move)
	noted := tr.eachStep("the receipt at the episode", "fsetxattr", `/data/episodes/run-1>, "user\.cis490\.receipt"`)
	wantOrder(t, sent, noted, move)
	// The adopted store is durable before the first episode is retired.
	adopt := tr.eachStep("the store's file", "renameat|renameat2|rename", `"\.store\.json\.tmp"|"\.\.store\.json\.tmp"`)
	wantOrder(t, sent, tr.syncStep("the store", `/data/outbox/\.\.store\.json\.tmp`), adopt.firstCall(), tr.syncStep("the outbox", "/data/outbox"), move)
	for what, path := range map[string]string{"the episode": "/data/(episodes|shipped)/run-1", "the shipped folder": "/data/shipped", "the episodes": "/data/episodes"} {
		wantOrder(t, move, tr.syncStep(what, path), drop)
	}
	// The folders themselves are durable before anything depends on them.
	for _, folder := range []string{"outbox", "shipped"} {
		wantOrder(t, tr.eachStep("mkdir", "mkdirat|mkdir", `"[^"]*`+folder+`"`), tr.syncStep("the parent of "+folder, h.Path("data")), packed)
	}
	calls := labtest.Find(tr, "unlink|unlinkat", "/data/episodes|/data/shipped")
	calls = slices.DeleteFunc(calls, func(c labtest.Call) bool { return strings.Contains(c.Args, `".cis490-probe.to", AT_REMOVEDIR`) })
	if len(calls) > 0 {
		t.Errorf("the shipper unlinks in an episode: %v", calls)
	}
	l.Settled(t)
}

// TestAcceptedEntryIsGoneForGood: if the entry reappeared after power loss, a later run of its
// name would be retired unsent.
func TestAcceptedEntryIsGoneForGood(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Once().MustExit(t, 4)
	h.Change("run-1", func(dir string) {
		fixture.Must(t, os.WriteFile(filepath.Join(dir, "late.txt"), []byte("more"), 0o644))
	})
	l.Proxy.Always(labtest.Fault{})
	h.Once().MustExit(t, 3)
	h.Run("retry", "--accept", "run-1").MustExit(t, 0)
	tr := shipperTrace(t, h, 0)
	wantOrder(t, tr.eachStep("the drop of the entry", "unlinkat", `/data/outbox>, "run-1\.tar\.zst"`),
		tr.eachStep("the drop of the acceptance", "unlinkat", `/data/outbox>, "run-1\.accepted"`), tr.syncStep("the outbox", "/data/outbox"))
	l.Settled(t)
}

func TestHoldIsDurable(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Draft("run-1", labtest.File{Name: "meta.json"})
	h.Finish("run-1")
	tr := shipperTrace(t, h, 3)
	const temp = `/data/outbox/\.run-1\.held\.tmp`
	wantOrder(t, tr.eachStep("the hold", written, temp+">"), tr.syncStep("the hold", temp),
		tr.eachStep("the hold's name", "renameat", `"run-1\.held"`), tr.syncStep("the outbox", "/data/outbox"))
	l.Check(t)
}

// TestPruneJudgesDurablyBeforeItDeletes: power loss leaves either a complete episode, or one
// whose judgement permits deleting the rest.
func TestPruneJudgesDurablyBeforeItDeletes(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	h.Run("verify").MustExit(t, 0)
	var tr *labtest.Trace
	labtest.Eventually(t, "an episode is deleted", func() bool {
		tr = labtest.NewTrace(t)
		return strings.Contains(h.TracedRun(tr, "prune", "--max-age", "1ns").MustExit(t, 0).Stdout, "deleted=1")
	})
	calls := trace(tr.Calls(t))
	const entry = `/data/outbox/\.trash/run-1~[\w~.-]+`
	wantOrder(t, calls.eachStep("the move", "renameat2", `/data/shipped>, "run-1", .*/data/outbox/\.trash>`),
		calls.syncStep("the trash", `/data/outbox/\.trash`), calls.syncStep("the shipped folder", "/data/shipped"),
		calls.eachStep("the judgement", "renameat2", `"run-1~\w+", .*"run-1~\w+~judged-[0-9.]+"`), calls.syncStep("the trash", `/data/outbox/\.trash`),
		calls.eachStep("the marker", "unlinkat", entry+`>, "done\.marker"`), calls.syncStep("the marker", entry),
		calls.eachStep("the rest", "unlinkat", entry+`>, "meta\.json"`))
	h.Forget("run-1")
	l.Check(t)
}

// TestStartSyncsTheParentsOfFoldersThatAKilledProcessMade: a process that made a folder may
// have been killed before it synced the parent. No later process can know.
func TestStartSyncsTheParentsOfFoldersThatAKilledProcessMade(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Unstarted())
	for _, dir := range []string{l.Path("data"), h.Outbox(), h.Shipped()} {
		fixture.Must(t, os.MkdirAll(dir, 0o755))
	}
	h.Episode("run-1")
	var shipper trace
	receiver := receiverTrace(t, l, func() { shipper = shipperTrace(t, h, 0) })
	wantOrder(t, receiver.syncStep("the parent of data", l.Dir), receiver.eachStep("the body", written, staged+">"))
	wantOrder(t, shipper.syncStep("the parent of the folders", h.Path("data")),
		shipper.eachStep("the move", "renameat2", `/data/episodes>, "run-1"`))
}
