package labtest

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
)

// Row is a line of index.jsonl.
type Row struct {
	At         string `json:"received_at_wall"`
	Host       string `json:"host_id"`
	Episode    string `json:"episode_id"`
	SHA256     string `json:"sha256"`
	Size       int64  `json:"size_bytes"`
	Commit     string `json:"commit"`
	Backfilled bool   `json:"backfilled"`
	Repaired   bool   `json:"repaired"`
	Skipped    int    `json:"skipped"`
}

// Archive returns where the receiver keeps an episode.
func (l *Lab) Archive(host, name string) string {
	return l.Path("data", "episodes", host, name+".tar.zst")
}

// Index returns the bytes of the index.
func (l *Lab) Index(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(l.Path("data", "index.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// Rows reads the index.
func (l *Lab) Rows(t testing.TB) []Row {
	t.Helper()
	text := l.Index(t)
	if text != "" && !strings.HasSuffix(text, "\n") {
		t.Errorf("the index ends in the middle of a line")
	}
	var rows []Row
	for line := range strings.Lines(text) {
		var row Row
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Errorf("a line of the index: %v: %q", err, line)
		}
		rows = append(rows, row)
	}
	return rows
}

// RowOf returns the one row of an episode.
func (l *Lab) RowOf(t testing.TB, host, name string) Row {
	t.Helper()
	var found []Row
	for _, row := range l.Rows(t) {
		if row.Host == host && row.Episode == name {
			found = append(found, row)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s/%s has %d rows, want 1", host, name, len(found))
	}
	return found[0]
}

// Check checks the invariants of custody. It may be called whenever no shipper moves anything:
// at the end of a pass, while daemons are idle, after a kill. If the receiver runs, Check waits
// until it has completed what senders have sent.
//
// Each stored file has one row and each row one file, with the sha256 and the size of its
// bytes, and every archive can be decoded. Every episode that was ever made is complete in
// exactly one place of its host. If that is the shipped folder, the receiver's archive unpacks
// to what was packed. Nothing that is delivered is left in the outbox.
func (l *Lab) Check(t testing.TB) {
	t.Helper()
	if l.receiver != nil && l.receiver.Running() {
		Eventually(t, "the receiver has ended what was in flight", func() bool { return !slices.ContainsFunc(l.Staged(), isInProgress) })
	}
	l.checkStore(t)
	if _, err := os.Lstat(l.Path("data", "index.jsonl")); err == nil {
		l.checkVerify(t)
	}
	for _, h := range l.hosts {
		h.checkFolders(t)
	}
}

// Settled is [Lab.Check] for a lab with nothing in flight: no upload is staged, and no outbox
// holds anything packed.
func (l *Lab) Settled(t testing.TB) {
	t.Helper()
	l.Check(t)
	packed, err := filepath.Glob(l.Path("*", "data", "outbox", "*.tar.zst*"))
	if left := append(packed, l.Staged()...); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q (%v)", left, err)
	}
}

// isInProgress reports whether a staged upload is in progress. An interrupted upload has an
// attribute with its offset.
func isInProgress(path string) bool {
	_, err := unix.Getxattr(path, "user.cis490.upload", make([]byte, 512))
	return err != nil && !os.IsNotExist(err)
}

// Staged returns the paths of the uploads that the receiver has staged.
func (l *Lab) Staged() []string {
	staged, _ := filepath.Glob(l.Path("data", "staging", "*", "*")) // the pattern is good
	return staged
}

func (l *Lab) checkStore(t testing.TB) {
	t.Helper()
	rows := make(map[string]Row)
	for _, row := range l.Rows(t) {
		path := l.Archive(row.Host, row.Episode)
		if _, twice := rows[path]; twice && !row.Repaired {
			t.Errorf("%s/%s has more than one row", row.Host, row.Episode)
		}
		rows[path] = row
	}
	files := l.storedPaths(t)
	undecoded := make(map[string]string) // sha256 to path
	for _, path := range files {
		row, found := rows[path]
		delete(rows, path)
		if !found {
			// This upload was not acknowledged: the next start finds it by its second link.
			if l.receiver == nil || l.receiver.Running() || countLinks(t, path) < 2 {
				t.Errorf("%s is stored and has no row", path)
			}
			continue
		}
		size, sum, err := sumFile(path)
		if err != nil || size != row.Size || sum != row.SHA256 {
			t.Errorf("%s has %d bytes with the sha256 %s (%v), its row says %d and %s", path, size, sum, err, row.Size, row.SHA256)
		}
		if !l.decoded[sum] {
			undecoded[sum] = path
		}
	}
	for path := range rows {
		t.Errorf("%s has a row and is not stored", path)
	}
	if len(undecoded) == 0 {
		return
	}
	args := slices.AppendSeq([]string{"-qt", "--"}, maps.Values(undecoded))
	if out, err := exec.Command("zstd", args...).CombinedOutput(); err != nil {
		t.Errorf("zstd -t: %v\n%s", err, out)
		return
	}
	for sum := range undecoded {
		l.decoded[sum] = true
	}
}

// storedPaths returns the paths of everything in the store.
func (l *Lab) storedPaths(t testing.TB) []string {
	t.Helper()
	var files []string
	root := l.Path("data", "episodes")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if isProbe(e.Name()) && (l.receiver == nil || !l.receiver.Running()) {
			return nil
		}
		if e.Type() != 0 || !strings.HasSuffix(path, ".tar.zst") || filepath.Dir(filepath.Dir(path)) != root {
			t.Errorf("%s is no recording", path)
		}
		files = append(files, path)
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return files
}

func countLinks(t testing.TB, path string) int {
	t.Helper()
	var st syscall.Stat_t
	fixture.Must(t, syscall.Lstat(path, &st))
	return int(st.Nlink)
}

func (l *Lab) checkVerify(t testing.TB) {
	t.Helper()
	r := l.Receiver("index", "verify", "--json", "--config", l.Path("receiver.toml"))
	if r.Code != 0 {
		t.Errorf("receiver index verify: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

func (h *Host) checkFolders(t testing.TB) {
	t.Helper()
	for name, all := range h.made {
		h.checkEpisode(t, name, all)
	}
	h.checkStrangers(t)
	if !h.killed {
		h.checkOutbox(t)
	}
}

// checkEpisode checks that each episode that was made under a name is in one place.
func (h *Host) checkEpisode(t testing.TB, name string, all []*madeEpisode) {
	t.Helper()
	var places []string
	for _, path := range append(h.shippedAs(t, name), h.Episodes(name)) {
		if _, err := os.Lstat(filepath.Join(path, "done.marker")); err == nil {
			places = append(places, path)
		}
	}
	found := make(map[string]Tree)
	for _, path := range places {
		found[path] = ReadTree(t, path)
	}
	for _, m := range all {
		i := slices.IndexFunc(places, func(path string) bool { return diffTrees(found[path], m.tree) == "" })
		if i < 0 {
			t.Errorf("%s/%s is not whole anywhere; of what is there:%s", h.Name, name, formatDifferences(found, m.tree))
			continue
		}
		if filepath.Dir(places[i]) == h.Shipped() {
			h.checkArchive(t, name, m.packed)
		}
		places = slices.Delete(places, i, i+1)
	}
	for _, path := range places {
		t.Errorf("%s is there once too often", path)
	}
}

func formatDifferences(found map[string]Tree, want Tree) string {
	var b strings.Builder
	for path, tree := range found {
		b.WriteString("\n" + path + ":\n" + diffTrees(tree, want))
	}
	return b.String()
}

// shippedAs returns the places in the shipped folder that an episode may have been moved to.
func (h *Host) shippedAs(t testing.TB, name string) []string {
	t.Helper()
	var places []string
	for _, e := range readDir(t, h.Shipped()) {
		if base := renamedSuffix.ReplaceAllString(e.Name(), ""); base == name {
			places = append(places, h.Shipped(e.Name()))
		}
	}
	return places
}

// renamedSuffix is appended to a name that already exists in the shipped folder.
var renamedSuffix = regexp.MustCompile(`~[0-9]+$`)

// checkArchive checks that the receiver's archive of a retired episode holds what was packed.
func (h *Host) checkArchive(t testing.TB, name string, want Tree) {
	t.Helper()
	path := h.lab.Archive(h.Name, name)
	_, sum, err := sumFile(path)
	if err != nil {
		t.Errorf("%s/%s was retired, and the receiver has no archive: %v", h.Name, name, err)
		return
	}
	text, known := h.lab.unpacked[name+sum]
	if !known {
		dir := Unpack(t, path)
		tops := readDir(t, dir)
		if len(tops) != 1 || tops[0].Name() != name {
			t.Errorf("%s holds %v, want the one directory %s", path, tops, name)
		}
		got := ReadTree(t, filepath.Join(dir, name))
		if d := diffTrees(got, want); d != "" {
			t.Errorf("%s is not what was packed:\n%s", path, d)
		}
		os.RemoveAll(dir)
		text = got.String()
		h.lab.unpacked[name+sum] = text
	}
	if text != want.String() {
		t.Errorf("%s is not what was packed", path)
	}
}

// isProbe reports whether a name is a temporary one of a start, which the next start removes
// after a kill.
func isProbe(name string) bool { return strings.HasPrefix(name, ".cis490-probe.") }

// checkStrangers checks that the shipped folder holds nothing that the lab did not make.
func (h *Host) checkStrangers(t testing.TB) {
	t.Helper()
	for _, e := range readDir(t, h.Shipped()) {
		if isProbe(e.Name()) {
			continue
		}
		if _, known := h.made[renamedSuffix.ReplaceAllString(e.Name(), "")]; !known {
			t.Errorf("%s was never made", h.Shipped(e.Name()))
		}
	}
}

// checkOutbox checks that the outbox holds nothing that is delivered.
func (h *Host) checkOutbox(t testing.TB) {
	t.Helper()
	for _, e := range readDir(t, h.Outbox()) {
		name, _, packed := strings.Cut(e.Name(), ".tar.zst")
		if !packed {
			continue
		}
		if _, err := os.Lstat(h.Episodes(name)); err != nil {
			t.Errorf("%s is left of an episode that is not waiting", h.Outbox(e.Name()))
		}
	}
}

func readDir(t testing.TB, dir string) []fs.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return entries
}
