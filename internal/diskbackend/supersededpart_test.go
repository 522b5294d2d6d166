package diskbackend_test

import (
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// TestPartOfAStoredArchiveIsDroppedAtTheStart: an earlier start could not read the part, and
// the archive has been stored by another upload since.
func TestPartOfAStoredArchiveIsDroppedAtTheStart(t *testing.T) {
	l := newLab(t, nil)
	u := uploadOf(partKey, resumed)
	l.sendInterrupted(l.wantAnnounced(u, 0), resumed, 300_000)
	staging, away := filepath.Join(l.Data, "staging", string(partKey.Host)), filepath.Join(l.Data, "quarantine", "away")
	l.restart(func() { fixture.Must(t, os.Rename(staging, away)) })
	l.WantReceipt(partKey, resumed, wire.Stored)
	l.restart(func() {
		fixture.Must(t, os.RemoveAll(staging))
		fixture.Must(t, os.Rename(away, staging))
	})
	l.WantConsistent(1)
}
