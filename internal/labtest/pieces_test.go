package labtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// makeArchive makes an archive of about size bytes with the system's tools.
func makeArchive(t *testing.T, h *labtest.Host, name string, size int) []byte {
	t.Helper()
	h.Draft(name, labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "mem.raw", Body: string(fixture.Noise(size, 1))})
	return []byte(runShell(t, `tar -C "$1" -cf - "$2" | zstd -q -c`, h.Episodes(), name))
}

// TestHostilePiecesChangeNothing: after any hostile request, an upload continues at its offset.
func TestHostilePiecesChangeNothing(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	other := l.Host("lab-02")
	content := makeArchive(t, h, "run-1", 500_000)
	up := announceByHand(t, h, "run-1", string(content))
	up.patch(t, 0, 1000, false, http.StatusNoContent)
	piece := func(offset, size, complete string) map[string]string {
		return map[string]string{
			"Content-Type": "application/partial-upload", "Content-Length": size, "Upload-Offset": offset, "Upload-Complete": complete,
		}
	}
	for _, c := range []struct {
		what   string
		who    *labtest.Sender
		method string
		where  string
		fields map[string]string
		status int
	}{
		{"before", up.Sender, "PATCH", up.where, piece("999", "10", "?0"), 409},
		{"behind", up.Sender, "PATCH", up.where, piece("1001", "10", "?0"), 409},
		{"far behind", up.Sender, "PATCH", up.where, piece("999999999999999", "10", "?1"), 409},
		{"negative", up.Sender, "PATCH", up.where, piece("-1000", "10", "?0"), 400},
		{"giant", up.Sender, "PATCH", up.where, piece("9223372036854775807", "10", "?0"), 400},
		{"giant body", up.Sender, "PATCH", up.where, piece("1000", "9223372036854775807", "?0"), 400},
		{"an end too soon", up.Sender, "PATCH", up.where, piece("1000", "10", "?1"), 400},
		{"another host's piece", other.Sender(t), "PATCH", up.where, piece("1000", "10", "?0"), 404},
		{"another host's question", other.Sender(t), "HEAD", up.where, nil, 404},
		{"another host's end", other.Sender(t), "DELETE", up.where, nil, 404},
		{"another host's announcement", other.Sender(t), "PUT", "/v1/episodes/lab-01/run-1", nil, 403},
		{"no upload", up.Sender, "PATCH", "/v1/uploads/QXKJ5TZ2B3MVY6NW7RDLA4CFEU", piece("1000", "10", "?0"), 404},
		{"a path", up.Sender, "DELETE", "/v1/uploads/..%2F..%2Findex.jsonl", nil, 404},
	} {
		body := io.Reader(strings.NewReader("0123456789"))
		if c.fields == nil {
			body = nil
		}
		a, err := c.who.Send(c.method, c.where, body, c.fields)
		if errors.Is(err, http.ErrBodyNotAllowed) || c.what == "giant body" && err != nil {
			a, err = labtest.Answer{Status: c.status}, nil // our own client does not report the details
		}
		if err != nil || a.Status != c.status {
			t.Errorf("%s: %v, %s, want %d", c.what, err, a.Told, c.status)
		}
	}
	if a, err := up.Announce("run-1", content); err != nil || a.Offset != 1000 || a.Where != up.where {
		t.Errorf("goes on at %d of %s (%v), want 1000 of %s", a.Offset, a.Where, err, up.where)
	}
	up.patch(t, 1000, len(content), true, http.StatusCreated)
	// After its end the upload no longer exists, and the archive is stored.
	up.patch(t, 1000, len(content), true, http.StatusNotFound)
	if a, err := up.Announce("run-1", content); err != nil || a.Status != http.StatusOK || !a.Receipt(content) {
		t.Errorf("announced again: %v, %s", err, a.Told)
	}
	l.RowOf(t, "lab-01", "run-1")
	l.Settled(t)
}

// TestTwoSendersOfOneUploadStoreItOnce: a cloned host, for example. Each takes the upload over
// from the other repeatedly, and both get a receipt.
func TestTwoSendersOfOneUploadStoreItOnce(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	content := makeArchive(t, h, "run-1", 2<<20)
	ended := make(chan error, 2)
	for range 2 {
		s := h.Sender(t)
		go func() { ended <- sendUntilReceipt(s, "run-1", content) }()
	}
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	l.RowOf(t, "lab-01", "run-1")
	l.Settled(t)
}

// sendUntilReceipt sends an archive in pieces of 100 kB until there is a receipt for it.
func sendUntilReceipt(s *labtest.Sender, name string, content []byte) error {
	last := int64(0)
	for range 1000 {
		a, err := s.Announce(name, content)
		if err != nil || a.Receipt(content) {
			return err
		}
		if a.Status != http.StatusCreated {
			return fmt.Errorf("announced: %s", a.Told)
		}
		if a.Offset < last {
			return fmt.Errorf("the offset fell from %d to %d", last, a.Offset)
		}
		last = a.Offset
		end := min(a.Offset+100_000, int64(len(content)))
		a, err = s.Patch(a.Where, a.Offset, content[a.Offset:end], end == int64(len(content)))
		if err == nil && a.Receipt(content) {
			return nil
		}
	}
	return errors.New("no receipt after 1000 pieces")
}

// TestSlowPieceDoesNotSit, and its bytes are kept.
func TestSlowPieceDoesNotSit(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Set("limits.idle_timeout", `"1s"`))
	content := makeArchive(t, h, "run-1", 500_000)
	up := announceByHand(t, h, "run-1", string(content))
	silent, end := io.Pipe()
	defer end.Close()
	a, err := up.PatchFrom(up.where, 0, io.MultiReader(bytes.NewReader(content[:100_000]), silent), int64(len(content)), true)
	if err != nil || a.Status != http.StatusRequestTimeout {
		t.Errorf("a piece that stands still: %v, %s", err, a.Told)
	}
	if a, err := up.Announce("run-1", content); err != nil || a.Offset != 100_000 {
		t.Errorf("goes on at %d (%v), want 100000", a.Offset, err)
	}
	up.patch(t, 100_000, len(content), true, http.StatusCreated)
	l.Settled(t)
}

// TestManyAnnouncementsCostLittle: a host that only begins uploads has a limited number of
// files, and the receiver's memory does not grow with announcements.
func TestManyAnnouncementsCostLittle(t *testing.T) {
	t.Parallel()
	const most = 32 // twice the uploads of a host
	l, h := newLab(t)
	s := h.Sender(t)
	begin := func(n int) {
		content := []byte(fmt.Sprintf("no archive, but %d", n))
		a, err := s.Announce(fmt.Sprintf("run-%d", n), content)
		wantAnswer(t, "the announcement", a, err, http.StatusCreated)
		a, err = s.Patch(a.Where, 0, content[:1], false)
		wantAnswer(t, "its first byte", a, err, http.StatusNoContent)
	}
	for n := range 100 {
		begin(n)
	}
	before := residentMemory(t, l.Process().Pid())
	for n := range 400 {
		begin(100 + n)
		if staged := len(l.Staged()); staged > most {
			t.Fatalf("%d files are staged after %d announcements, want at most %d", staged, n, most)
		}
	}
	if after := residentMemory(t, l.Process().Pid()); after > before+16<<20 {
		t.Errorf("the receiver had %d bytes, and has %d", before, after)
	}
	// Uploads that are announced and never begun use no file either.
	for n := range 400 {
		a, err := s.Announce(fmt.Sprintf("giant-%d", n), []byte(strconv.Itoa(n)))
		wantAnswer(t, "an announcement", a, err, http.StatusCreated)
	}
	if staged := len(l.Staged()); staged > 0 {
		t.Errorf("%d files are staged of uploads that gave way to others", staged)
	}
	l.Check(t)
}

// residentMemory returns the resident memory of a process.
func residentMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	fixture.Must(t, err)
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmRSS in %s", status)
	}
	n, err := strconv.Atoi(string(m[1]))
	fixture.Must(t, err)
	return n << 10
}
