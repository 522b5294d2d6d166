package crashtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"testing"

	"cis490/internal/fixture"
)

// send sends a parcel in pieces and interrupts some of them, until the parcel is acknowledged
// or the receiver stops answering.
func (w *uploadClient) send(p *parcel) bool {
	for {
		a, err := w.sender.Announce(p.name, p.body)
		if err != nil || a.Receipt(p.body) {
			return err == nil
		}
		if a.Status != http.StatusCreated || a.Offset < 0 {
			return false
		}
		w.noteOffset(p.name, a.Offset)
		left := p.body[a.Offset:]
		switch some := left[:w.randomBelow(len(left)/2+1)]; w.randomBelow(6) {
		case 0, 1, 2: // and the answer says how many bytes arrived
			a, err = w.sender.Patch(a.Where, a.Offset, some, false)
			if err == nil && a.Status == http.StatusNoContent {
				w.noteOffset(p.name, a.Offset)
			}
		case 3, 4: // without an answer
			w.sender.PatchFrom(a.Where, a.Offset, io.MultiReader(bytes.NewReader(some), brokenReader{}), int64(len(left)), true)
		default:
			a, err = w.sender.Patch(a.Where, a.Offset, left, true)
		}
		// Another refusal may come from an interrupted piece that is handled after the
		// announcement.
		if err != nil || a.Status >= http.StatusInternalServerError || a.Receipt(p.body) {
			return a.Receipt(p.body)
		}
	}
}

// brokenReader is the end of a body whose connection is cut.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("cut on purpose") }

func (w *uploadClient) randomBelow(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

// noteOffset records an offset that the receiver has reported. After a power cut, a stored
// archive may seem to be corrupt.
func (w *uploadClient) noteOffset(name string, offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if offset < w.told[name] && !w.over {
		w.fell = append(w.fell, fmt.Sprintf("%s from %d to %d", name, w.told[name], offset))
	}
	w.told[name] = max(offset, w.told[name])
}

// offsets returns the offsets that the receiver has reported before a power cut.
func (w *uploadClient) offsets() map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	return maps.Clone(w.told)
}

// wantOffsetsKept checks that every upload is at least at the offset reported before a cut, and
// returns the number of uploads.
func (w *uploadClient) wantOffsetsKept(t *testing.T, before map[string]int64) int {
	t.Helper()
	w.mu.Lock()
	waiting := w.waiting
	w.over = false
	w.told = make(map[string]int64) // an answer after that may have come too late
	w.mu.Unlock()
	kept := 0
	for _, p := range waiting {
		told := before[p.name]
		if told == 0 {
			continue
		}
		kept++
		a, err := w.sender.Announce(p.name, p.body)
		fixture.Must(t, err)
		if !a.Receipt(p.body) && a.Offset < told {
			t.Errorf("%s goes on at %d, and was told %d: %s", p.name, a.Offset, told, a.Told)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.fell) > 0 {
		t.Errorf("offsets fell while nobody cut anything: %q", w.fell)
	}
	return kept
}
