package labtest_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// The invariants of the receiver.

func TestOneReceiverADataDirectory(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	second := l.Receiver("--config", l.Path("receiver.toml"))
	if second.Code != 5 {
		t.Errorf("exit code %d of the second receiver, want 5", second.Code)
	}
	mustContain(t, "the loser", second.Stderr, fmt.Sprintf("pid %d (receiver)", l.Process().Pid()))
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestHostCannotReachAnothersPath(t *testing.T) {
	t.Parallel()
	l, a := newLab(t)
	b := l.Host("lab-02")
	b.Episode("run-1")
	b.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	before := l.DataTree(t)
	mallory := a.Client(t)
	var answers []string
	for _, path := range []string{"/v1/episodes/lab-02/run-1", "/v1/episodes/lab-02/run-2", "/v1/episodes/nobody/run-1"} {
		status, body := putArchive(t, l, mallory, path, []byte("mine"))
		if status != http.StatusForbidden {
			t.Errorf("PUT %s: %d %s, want 403", path, status, body)
		}
		answers = append(answers, body)
		resp, err := mallory.Head(l.URL(path))
		fixture.Must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("HEAD %s: %d, want 403", path, resp.StatusCode)
		}
	}
	if answers[0] != answers[1] || answers[1] != answers[2] {
		t.Errorf("the answers tell what is there: %q", answers)
	}
	if after := l.DataTree(t); after.String() != before.String() {
		t.Errorf("the data directory changed from\n%sto\n%s", before, after)
	}
	l.Settled(t)
}

func TestHostileRequestsAreRefusedAndChangeNothing(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	before := l.DataTree(t)
	c := h.Client(t)
	for path, want := range map[string]int{
		"/v1/episodes/lab-01/..%2f..%2fx":                 400,
		"/v1/episodes/lab-01/%2e%2e":                      400,
		"/v1/episodes/lab-01/a%00b":                       400,
		"/v1/episodes/lab-01/" + strings.Repeat("x", 129): 400,
		"/v1/episodes/lab-01/.hidden":                     400,
		"/v1/episodes/lab-01/a/b":                         404,
		"/elsewhere":                                      404,
	} {
		if status, body := putArchive(t, l, c, path, []byte("x")); status != want {
			t.Errorf("PUT %s: %d %s, want %d", path, status, body, want)
		}
	}
	for _, field := range []string{"", "sha-256=:AAAA:", "sha-256=:" + strings.Repeat("A", 43) + "=:", "sha-256=:Q" + strings.Repeat("A", 42) + "=:", "md5=:AAAA:"} {
		req, err := http.NewRequest(http.MethodPut, l.URL("/v1/episodes/lab-01/run-1"), strings.NewReader("x"))
		fixture.Must(t, err)
		if field != "" {
			req.Header.Set("Repr-Digest", field)
		}
		resp, err := c.Do(req)
		fixture.Must(t, err)
		resp.Body.Close()
		if resp.StatusCode != 400 || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("digest %q: %d %s, want 400 and a problem", field, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	}
	after := l.DataTree(t)
	delete(after, "staging/lab-01") // the folder of a host that has connected
	if after.String() != before.String() {
		t.Errorf("the data directory changed from\n%sto\n%s", before, after)
	}
	l.Settled(t)
}

func TestMinFreeRefusesBeforeTheBodyAndRecovers(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	l.Set("min_free", `"1PiB"`)
	l.Restart()
	h.Episode("run-1")
	p := h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	mustContain(t, "shipper", p.Stderr, "insufficient-storage")
	wantNoHolds(t, h)
	if status, body := putArchive(t, l, h.Client(t), "/v1/episodes/lab-01/by-hand", []byte("x")); status != http.StatusInsufficientStorage {
		t.Errorf("PUT: %d %s, want 507", status, body)
	}
	if r := h.Run("--ping"); r.Code != 4 {
		t.Errorf("ping of a full receiver: exit code %d, want 4", r.Code)
	}
	l.Check(t)
	l.Set("min_free", `"1MiB"`)
	l.Restart()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestRowIsOfTheOriginalsForm(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("with-commit")
	h.Episode("without", labtest.File{Name: "a-not-meta.json", Body: `{"code_version":{"commit":"` + labtest.Commit + `"}}`})
	h.Episode("upper", labtest.File{Name: "meta.json", Body: `{"code_version":{"commit":"` + strings.ToUpper(labtest.Commit) + `"}}`})
	h.Episode("evil", labtest.File{Name: "meta.json", Body: `{"code_version":{"commit":"` + strings.Repeat(`\"`, 20) + `"}}`})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 4, Shipped: 4})
	form := func(commit, name string) *regexp.Regexp {
		if commit != "" {
			commit = `"commit": "` + commit + `", `
		}
		return regexp.MustCompile(`(?m)^\{` + commit + `"episode_id": "` + name + `", "host_id": "lab-01", ` +
			`"received_at_wall": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", "schema_version": 1, ` +
			`"sha256": "[0-9a-f]{64}", "size_bytes": [1-9]\d*\}$`)
	}
	for name, commit := range map[string]string{"with-commit": labtest.Commit, "without": "", "upper": labtest.Commit, "evil": ""} {
		if n := len(form(commit, name).FindAllString(l.Index(t), -1)); n != 1 {
			t.Errorf("%s has %d rows of the form, want 1, in\n%s", name, n, l.Index(t))
		}
	}
	l.Settled(t)
}

func TestTornTailIsCutAndSaved(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	for i, torn := range []string{`{"episode_id": "ru`, strings.Repeat("\x00", 4096)} {
		l.Kill()
		f, err := os.OpenFile(l.Path("data", "index.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
		fixture.Must(t, err)
		f.WriteString(torn)
		f.Close()
		l.Start()
		name := fmt.Sprintf("later-%d", i)
		h.Episode(name)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		l.Settled(t)
	}
}

func TestStagedFileWithTwoLinksGetsItsRowAtStart(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	for _, name := range []string{"run-1", "run-2"} { // one after the other: rows are in the order of time
		h.Episode(name)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	}
	l.Kill()
	// The state after a crash between link and row, and after one between row and unlink.
	row := l.RowOf(t, "lab-01", "run-2")
	index := l.Index(t)
	lines := strings.SplitAfter(index, "\n")
	kept := ""
	for _, line := range lines {
		if !strings.Contains(line, row.SHA256) {
			kept += line
		}
	}
	fixture.WriteFile(t, l.Path("data", "index.jsonl"), kept)
	for _, name := range []string{"run-1", "run-2"} {
		fixture.Must(t, os.Link(l.Archive("lab-01", name), l.Path("data/staging/lab-01", name+"~CRASH")))
	}
	fixture.WriteFile(t, l.Path("data/staging/lab-01", "run-3~CRASH"), "half an upload")
	l.Check(t)
	l.Start()
	if got := l.RowOf(t, "lab-01", "run-2"); got != row {
		t.Errorf("the row that was made anew is %+v, want %+v", got, row)
	}
	l.Settled(t)
}

func TestAlreadyPresentMakesSureOfTheRow(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	// A file that was copied in by hand has no attribute and no row.
	stored := fixture.ReadFile(t, l.Archive("lab-01", "run-1"))
	l.Kill()
	for _, path := range []string{l.Archive("lab-01", "run-1"), l.Path("data", "index.jsonl")} {
		fixture.Must(t, os.Remove(path))
	}
	fixture.WriteFile(t, l.Archive("lab-01", "run-1"), stored)
	h.ForgetStore()
	l.Start()
	fixture.Must(t, os.Rename(h.Shipped("run-1"), h.Episodes("run-1")))
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1})
	l.Settled(t)
}

func TestCorruptArchiveIsRepairedAndNeverAcknowledged(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	dir := h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	first := l.RowOf(t, "lab-01", "run-1")
	good := fixture.ReadFile(t, l.Archive("lab-01", "run-1"))
	f, err := os.OpenFile(l.Archive("lab-01", "run-1"), os.O_RDWR, 0)
	fixture.Must(t, err)
	defer f.Close()
	f.WriteAt([]byte{good[40] ^ 0x40}, 40)
	bad := fixture.ReadFile(t, l.Archive("lab-01", "run-1"))
	if r := l.Receiver("index", "verify", "--deep", "--config", l.Path("receiver.toml")); r.Code == 0 {
		t.Error("verify --deep finds nothing")
	}
	fixture.Must(t, os.Rename(h.Shipped("run-1"), dir))
	// The new bytes are stored, the corrupt ones quarantined, and a second row says so.
	if p := h.Once(); p.Code != 0 || p.AlreadyPresent != 0 || p.Shipped != 1 {
		t.Errorf("exit code %d, %+v", p.Code, p.Tally)
	}
	if fixture.ReadFile(t, l.Archive("lab-01", "run-1")) != good {
		t.Error("what is stored is not what was sent")
	}
	aside, err := filepath.Glob(l.Path("data/quarantine/lab-01/run-1*"))
	if err != nil || len(aside) != 1 || fixture.ReadFile(t, aside[0]) != bad {
		t.Errorf("set aside: %q (%v), want the one bad copy", aside, err)
	}
	rows := l.Rows(t)
	if len(rows) != 2 || rows[0] != first || !rows[1].Repaired || rows[1].SHA256 != first.SHA256 {
		t.Errorf("the rows are %+v", rows)
	}
	l.Settled(t)
	fixture.Must(t, os.Rename(h.Shipped("run-1"), dir))
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1}) // no third row
	if again := l.Rows(t); len(again) != 2 {
		t.Errorf("%d rows, want 2", len(again))
	}
	l.Settled(t)
}

func TestCurlCanUpload(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	packByHand(t, h, "by-curl")
	script := `d=$(openssl dgst -sha256 -binary "$1" | base64)
exec curl -sS --fail-with-body --cacert "$3/ca.crt" --cert "$3/lab-01.crt" --key "$3/lab-01.key" -T "$1" -H "Repr-Digest: sha-256=:$d:" "$2"`
	for _, status := range []string{"stored", "already-present"} {
		out := runShell(t, script, l.Path("by-curl.tar.zst"), l.URL("/v1/episodes/lab-01/by-curl"), h.Path("pki"))
		mustContain(t, "curl", out, `"status":"`+status+`"`, `"received_at_wall":"`)
	}
	l.Settled(t)
}

func TestFileCopiedInByHandConflictsToo(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	packByHand(t, h, "run-1")
	fixture.Must(t, os.MkdirAll(l.Path("data/episodes/lab-01"), 0o755))
	copyTree(t, l.Path("run-1.tar.zst"), l.Archive("lab-01", "run-1"))
	stored := fixture.ReadFile(t, l.Archive("lab-01", "run-1"))
	l.Receiver("index", "backfill", "--config", l.Path("receiver.toml")).MustExit(t, 0)
	h.Finish("run-1")
	h.Once().Must(t, 3, labtest.Tally{Scanned: 1, Conflicts: 1})
	if fixture.ReadFile(t, l.Archive("lab-01", "run-1")) != stored {
		t.Error("the conflict changed what is stored")
	}
	if row := l.RowOf(t, "lab-01", "run-1"); !row.Backfilled {
		t.Errorf("the row is not marked as backfilled: %+v", row)
	}
	l.Check(t)
}

func TestRacingUploadsOfOneNameStoreOne(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	packByHand(t, h, "ours")
	packByHand(t, h, "theirs")
	bodies := []string{fixture.ReadFile(t, l.Path("ours.tar.zst")), fixture.ReadFile(t, l.Path("theirs.tar.zst"))}
	const racers = 6 // fewer than a host may have
	for round := range 10 {
		var counts [600]atomic.Int32
		var all sync.WaitGroup
		path := fmt.Sprintf("/v1/episodes/lab-01/run-%d", round)
		for i := range racers {
			c := h.Client(t)
			all.Go(func() {
				status, _ := putArchive(t, l, c, path, []byte(bodies[i%2]))
				counts[status].Add(1)
			})
		}
		all.Wait()
		if created, present, conflicts := counts[201].Load(), counts[200].Load(), counts[409].Load(); created != 1 || present != racers/2-1 || conflicts != racers/2 {
			t.Errorf("round %d: %d created, %d present, %d conflicts; want 1, %d, %d", round, created, present, conflicts, racers/2-1, racers/2)
		}
	}
	l.Settled(t)
}

func TestTooLargeAnArchiveIsHeldByItsHost(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Set("limits.archive_bytes", `"100KiB"`))
	makeLargeEpisode(t, h, "large", 1<<20)
	h.Episode("small")
	h.Once().Must(t, 3, labtest.Tally{Scanned: 2, Shipped: 1, Held: 1})
	if reason, _ := readHold(t, h, "large"); reason != "refused" {
		t.Errorf("held for the reason %q, want refused", reason)
	}
	l.Check(t)
}

// TestReceiptAndRowSayTheSameTime after a recovery whose row could not get the
// time of the commit, because a later row was there already.
func TestReceiptAndRowSayTheSameTime(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	for _, name := range []string{"run-1", "run-2"} {
		h.Episode(name)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	}
	l.Kill()
	first, rest, _ := strings.Cut(l.Index(t), "\n")
	mustContain(t, "the first row", first, `"run-1"`)
	fixture.WriteFile(t, l.Path("data", "index.jsonl"), rest)
	fixture.Must(t, os.Link(l.Archive("lab-01", "run-1"), l.Path("data/staging/lab-01/run-1~CRASH")))
	l.Start()
	status, receipt := putArchive(t, l, h.Client(t), "/v1/episodes/lab-01/run-1", []byte(fixture.ReadFile(t, l.Archive("lab-01", "run-1"))))
	if status != http.StatusOK {
		t.Fatalf("PUT of the same: %d %s", status, receipt)
	}
	mustContain(t, "the receipt", receipt, l.RowOf(t, "lab-01", "run-1").At)
}
