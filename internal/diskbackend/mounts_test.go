package diskbackend_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/hint"
	"cis490/internal/wire"
)

// TestEachRequestOfAHostWhoseFolderIsAMountSaysSo: the refusal comes before its bytes are read,
// and does not claim a full disk. A later mount is reported too.
func TestEachRequestOfAHostWhoseFolderIsAMountSaysSo(t *testing.T) {
	for _, of := range []string{"episodes", "staging"} {
		l := newLab(t, nil)
		l.WantReceipt(key("lab-01", "a"), fixture.Noise(1000, 1), wire.Stored)
		u := uploadOf(key("lab-01", "b"), fixture.Noise(1000, 2))
		before := l.wantAnnounced(uploadOf(key("lab-01", "c"), fixture.Noise(1000, 3)), 0)
		bind := func() {
			path := l.makeHostDir(of, "lab-01")
			fixture.RequireMount(t, syscall.Mount(path, path, "", syscall.MS_BIND, ""))
			t.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
		}
		later := readerFunc(func([]byte) (int, error) { bind(); return 0, io.EOF })
		errs := map[string]error{}
		if of == "episodes" { // the received bytes are in staging already
			_, errs["a mount meanwhile"] = l.b.Put(t.Context(), u, io.MultiReader(bytes.NewReader(fixture.Noise(1000, 2)), later))
		} else {
			bind()
		}
		unread := readerFunc(func([]byte) (int, error) { t.Error("the body was read"); return 0, io.EOF })
		_, errs["put"] = l.b.Put(t.Context(), u, unread)
		_, _, errs["announce"] = l.b.Announce(t.Context(), u)
		_, errs["open"] = l.b.OpenUpload(t.Context(), u.Key)
		_, _, errs["append"] = l.b.AppendPiece(t.Context(), "lab-01", before.ID, wire.Piece{Size: 1000, Last: true}, unread)
		s, err := l.b.Storage(t.Context(), "lab-01")
		fixture.Must(t, err)
		errs["ping"] = s.Err()
		for door, err := range errs {
			if !errors.Is(err, wire.Full) || !strings.HasSuffix(err.Error(), wire.HostIsMount) || strings.Contains(hint.For(err), "full") {
				t.Errorf("%s of %s says %v (%s)", of, door, err, hint.For(err))
			}
		}
		l.WantReceipt(key("lab-01", "a"), fixture.Noise(1000, 1), wire.AlreadyPresent)
		l.WantReceipt(key("lab-02", "a"), fixture.Noise(1000, 1), wire.Stored)
	}
}
