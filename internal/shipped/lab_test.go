package shipped_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/config"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/shipped"
	"cis490/internal/source"
	"cis490/internal/wire"
)

const storeID = "STORE1"

// A lab is the directories of a lab host, and a receiver that has what was delivered.
type lab struct {
	testing.TB
	dir       string
	dirs      hostdir.Config
	retention shipped.RetentionConfig
	receiver  *receiver
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{TB: t, dir: fixture.MemoryDir(t), receiver: &receiver{stored: map[episode.Name]*storedArchive{}}}
	for _, name := range []string{"episodes", "outbox", "shipped"} {
		fixture.Must(t, os.Mkdir(l.path(name), 0o755))
	}
	l.dirs = hostdir.Config{
		Episodes: config.Path(l.path("episodes")), Outbox: config.Path(l.path("outbox")), Shipped: config.Path(l.path("shipped")),
		Limits: archive.DefaultLimits(),
	}
	l.withDirs(func(d *hostdir.Dirs) { fixture.Must(t, d.Outbox.AdoptStore(outbox.Store{ID: storeID})) })
	return l
}

// newExpiredLab returns a lab with retired episodes that the policy deletes, and that the
// receiver has verified.
func newExpiredLab(t testing.TB, names ...episode.Name) *lab {
	t.Helper()
	l := newLab(t)
	l.setMaxAge("1h")
	for _, name := range names {
		l.finishEpisode(name)
		l.deliver(name, 3*time.Hour)
	}
	return l
}

func (l *lab) setMaxAge(age string) { fixture.Must(l, l.retention.MaxAge.UnmarshalText([]byte(age))) }

func (l *lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

func (l *lab) withDirs(do func(*hostdir.Dirs)) {
	l.Helper()
	d, err := hostdir.Open(l.dirs)
	fixture.Must(l, err)
	defer d.Close()
	do(d)
}

func (l *lab) finishEpisode(name episode.Name) {
	l.Helper()
	fixture.WriteFile(l, l.path("episodes", string(name), "meta.json"), "{}")
	fixture.WriteFile(l, l.path("episodes", string(name), "telemetry.jsonl"), "data of "+string(name))
	fixture.WriteFile(l, l.path("episodes", string(name), episode.Marker), "")
}

// deliver packs and retires an episode as the shipper does. The receiver stored it some time
// ago, and has verified it since.
func (l *lab) deliver(name episode.Name, ago time.Duration) {
	l.Helper()
	l.withDirs(func(d *hostdir.Dirs) {
		tree, err := d.Source.OpenTree(name)
		fixture.Must(l, err)
		defer tree.Close()
		survey, err := tree.Survey(l.Context())
		fixture.Must(l, err)
		var b bytes.Buffer
		fixture.Must(l, archive.NewPacker().Pack(l.Context(), &b, tree, survey))
		size := int64(b.Len())
		sum := digest.Digest(sha256.Sum256(b.Bytes()))
		contents, err := archive.ContentDigest(&b, io.Discard)
		fixture.Must(l, err)
		at := time.Now()
		marks, err := tree.ReadMarks(l.Context())
		fixture.Must(l, err)
		receipt := source.Receipt{Digest: sum, Size: size, ReceivedAt: at.Add(-ago)}
		l.receiver.stored[name] = &storedArchive{receipt, at, contents}
		fixture.Must(l, d.Source.Retire(name, &receipt, source.StateOf(marks, at)))
	})
}

// wantFiles compares the names in a folder, without the lock files and the adopted store.
func (l *lab) wantFiles(folder string, want ...string) {
	l.Helper()
	entries, err := os.ReadDir(l.path(folder))
	fixture.Must(l, err)
	var got []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			got = append(got, e.Name())
		}
	}
	if !slices.Equal(got, want) {
		l.Errorf("%s has %q, want %q", folder, got, want)
	}
}

// notedChange returns the cause noted at a retired episode, or "".
func (l *lab) notedChange(dir string) string {
	l.Helper()
	b := make([]byte, 4096)
	n, err := unix.Getxattr(l.path("shipped", dir), "user.cis490.changed", b)
	if errors.Is(err, unix.ENODATA) {
		return ""
	}
	fixture.Must(l, err)
	return string(b[25:n])
}

// verify verifies, and returns the findings, as "run-1 verified".
func (l *lab) verify(o shipped.VerifyOptions) (shipped.VerifyReport, string) {
	l.Helper()
	var found []string
	o.OnResult = func(r shipped.VerifyResult) error {
		found = append(found, r.Dir+" "+string(r.Finding))
		return nil
	}
	report, err := shipped.Verify(l.Context(), l.dirs, l.receiver, o)
	fixture.Must(l, err)
	return report, strings.Join(found, ", ")
}

// prune prunes, and returns what was done, as "run-1 max_age deleted".
func (l *lab) prune(o shipped.PruneOptions) (shipped.PruneReport, string) {
	l.Helper()
	var found []string
	o.OnResult = func(p shipped.PruneResult) error {
		s := p.Dir + " " + p.Reason
		switch {
		case p.Deleted:
			s += " deleted"
		case p.Kept != "":
			s += " kept"
		}
		found = append(found, s)
		return nil
	}
	o.Retention = l.retention
	if o.Limit == 0 {
		o.Limit = 1000
	}
	if o.MinUnchanged == 0 {
		o.MinUnchanged = 1
	}
	report, err := shipped.Prune(l.Context(), l.dirs, l.receiver, o)
	fixture.Must(l, err)
	return report, strings.Join(found, ", ")
}

// receiver answers inventories.
type receiver struct {
	stored map[episode.Name]*storedArchive
	during func() // unless nil, is called before the answer to an inventory is returned
}

type storedArchive struct {
	receipt    source.Receipt
	verifiedAt time.Time
	contents   digest.Digest // zero: as an older receiver, which does not report it
}

// Inventory implements the receiver's contract.
func (r *receiver) Inventory(_ context.Context, asked []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, *wire.Store, error) {
	if r.during != nil {
		defer r.during()
	}
	entries := make([]wire.InventoryEntry, 0, len(asked))
	for _, q := range asked {
		a, found := r.stored[q.Episode]
		if !found {
			entries = append(entries, wire.InventoryEntry{Episode: q.Episode, State: wire.Absent})
			continue
		}
		if readBack {
			a.verifiedAt = time.Now()
		}
		e := wire.InventoryEntry{
			Episode: q.Episode, State: wire.Present, Digest: &a.receipt.Digest, Size: a.receipt.Size,
			ReceivedAt: &wire.Timestamp{Time: a.receipt.ReceivedAt},
		}
		if a.receipt.Digest != q.Digest {
			e.State = wire.Divergent
		}
		if !a.verifiedAt.IsZero() {
			e.VerifiedAt = &wire.Timestamp{Time: a.verifiedAt}
			if a.contents != (digest.Digest{}) {
				e.Contents = &a.contents
			}
		}
		entries = append(entries, e)
	}
	return entries, &wire.Store{ID: storeID}, nil
}
