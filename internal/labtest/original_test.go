package labtest_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// The eleven cases of the original program, in its order.

func TestPingSaysWhoWeAreAndCreatesNothing(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	before := l.DataTree(t)
	var report struct {
		OK       bool
		Receiver struct {
			Host string `json:"host_id"`
		}
	}
	out := h.Run("--ping", "--json").MustExit(t, 0).Stdout
	if err := json.Unmarshal([]byte(out), &report); err != nil || !report.OK || report.Receiver.Host != "lab-01" {
		t.Errorf("ping: %s (%v)", out, err)
	}
	if after := l.DataTree(t); after.String() != before.String() {
		t.Errorf("a ping changed the data directory from\n%sto\n%s", before, after)
	}
	l.Check(t)
}

func TestFinishedEpisodeIsPackedAndShipped(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if !h.IsShipped("run-1") || fixture.Exists(h.Episodes("run-1")) {
		t.Error("run-1 was not moved to the shipped folder")
	}
	l.Settled(t)
}

func TestRoundTripThroughSystemZstdAndTar(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	dir := h.Draft("run-1")
	fixture.Must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	fixture.WriteFile(t, filepath.Join(dir, "evil\n\x1b[2Jname"), "x")
	fixture.WriteFile(t, filepath.Join(dir, strings.Repeat("long", 50)), "y")
	h.Finish("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t) // compares the trees

	out, err := exec.Command("tar", "--use-compress-program=zstd", "-tf", l.Archive("lab-01", "run-1")).Output()
	if first, _, _ := strings.Cut(string(out), "\n"); err != nil || first != "run-1/meta.json" {
		t.Errorf("the first member is %q (%v), want meta.json", first, err)
	}
	unpacked := labtest.Unpack(t, l.Archive("lab-01", "run-1"))
	for _, name := range []string{"meta.json", "net/flows.csv"} {
		want, err := os.Lstat(h.Shipped("run-1", name))
		fixture.Must(t, err)
		got, err := os.Lstat(filepath.Join(unpacked, "run-1", name))
		fixture.Must(t, err)
		if got.ModTime().Unix() != want.ModTime().Unix() {
			t.Errorf("%s has the time %v, want %v", name, got.ModTime(), want.ModTime())
		}
	}
}

func TestShippingTheSameAgainIsAlreadyPresent(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	row := l.RowOf(t, "lab-01", "run-1")
	fixture.Must(t, os.Rename(h.Shipped("run-1"), h.Episodes("run-1")))
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1})
	if again := l.RowOf(t, "lab-01", "run-1"); again != row {
		t.Errorf("the row changed from %+v to %+v", row, again)
	}
	l.Settled(t)
}

func TestOtherBytesUnderTheSameNameAreAConflictAndBothStay(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	stored, index := fixture.ReadFile(t, l.Archive("lab-01", "run-1")), l.Index(t)

	h.Episode("run-1", labtest.File{Name: "meta.json", Body: `{"another": true}`})
	h.Once().Must(t, 3, labtest.Tally{Scanned: 1, Conflicts: 1})
	if reason, _ := readHold(t, h, "run-1"); reason != "conflict" {
		t.Errorf("held for the reason %q, want conflict", reason)
	}
	mustContain(t, "the hold", fixture.ReadFile(t, h.Outbox("run-1.held")), l.RowOf(t, "lab-01", "run-1").SHA256)
	l.Check(t)

	accepted := l.Proxy.Accepted()
	h.Once().Must(t, 3, labtest.Tally{Scanned: 1, Held: 1})
	if n := l.Proxy.Accepted() - accepted; n != 0 {
		t.Errorf("an old hold was sent again: %d connections", n)
	}
	if fixture.ReadFile(t, l.Archive("lab-01", "run-1")) != stored || l.Index(t) != index {
		t.Error("the conflict changed what is stored")
	}
	l.Check(t)
}

func TestReceiverDownLosesNothingAndRecovers(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Unstarted())
	unused, err := net.Listen("tcp", "127.0.0.1:0") // a port without a listener
	fixture.Must(t, err)
	unused.Close()
	through := "https://" + l.Proxy.Addr()
	h.Set("receiver.url", `"https://`+unused.Addr().String()+`"`)
	h.Episode("run-1")
	h.Episode("run-2")
	for range 2 {
		p := h.Once().Must(t, 4, labtest.Tally{Scanned: 2, Transient: 2})
		mustContain(t, "shipper", p.Stderr, "is the receiver running")
		l.Check(t)
	}
	wantNoHolds(t, h)
	if r := h.Run("--ping"); r.Code != 4 {
		t.Errorf("ping of nobody: exit code %d, want 4", r.Code)
	}
	h.Set("receiver.url", `"`+through+`"`)
	l.Start()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	l.Settled(t)
}

func TestTokenIsAskedFor(t *testing.T) {
	t.Parallel()
	const token = "correct-horse-battery"
	cases := []struct {
		name, token string
		code        int
		want        labtest.Tally
	}{
		{"missing", "", 4, labtest.Tally{Scanned: 1, Transient: 1}},
		{"wrong", "guess", 4, labtest.Tally{Scanned: 1, Transient: 1}},
		{"right", token, 0, labtest.Tally{Scanned: 1, Shipped: 1}},
	}
	l, h := newLab(t, labtest.Unstarted(), labtest.Set("auth.tokens_file", `"tokens"`))
	writeTokens(t, l, token)
	l.Start()
	h.Episode("run-1")
	for _, c := range cases { // in this order: it stays complete until the right one comes
		t.Run(c.name, func(t *testing.T) {
			h.Set("receiver.token_file", `""`)
			if c.token != "" {
				fixture.WriteFile(t, h.Path("token"), c.token+"\n")
				fixture.Must(t, os.Chmod(h.Path("token"), 0o600))
				h.Set("receiver.token_file", `"token"`)
			}
			if r := h.Run("--ping"); r.Code != c.code {
				t.Errorf("ping: exit code %d, want %d\n%s", r.Code, c.code, r.Stderr)
			}
			h.Once().Must(t, c.code, c.want)
			wantNoHolds(t, h)
			l.Check(t)
		})
	}
	l.Settled(t)
}

func TestRetiredEpisodeIsNotShippedAgain(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	accepted := l.Proxy.Accepted()
	h.Once().Must(t, 0, labtest.Tally{})
	if n := l.Proxy.Accepted() - accepted; n != 0 {
		t.Errorf("%d connections were made for nothing", n)
	}
	l.Settled(t)
}

func TestPartialLeftByACrashIsOverwritten(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	fixture.Must(t, os.MkdirAll(h.Outbox(), 0o755))
	fixture.WriteFile(t, h.Outbox("run-1.tar.zst.partial"), strings.Repeat("torn", 100_000))
	fixture.WriteFile(t, h.Outbox("gone.tar.zst.partial"), "torn")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestUnfinishedEpisodeWaits(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Draft("run-1")
	h.Once().Must(t, 0, labtest.Tally{})
	h.Finish("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}
