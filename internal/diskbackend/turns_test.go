package diskbackend_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/diskbackend"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// countVerified returns how many of a host's archives count as verified.
func (l *lab) countVerified(host string, names ...string) int {
	l.Helper()
	claims := make([]wire.InventoryQuery, len(names))
	for i, name := range names {
		claims[i] = wire.InventoryQuery{Episode: episode.Name(name)}
	}
	found, err := l.b.Inventory(l.Context(), episode.Name(host), claims, false)
	fixture.Must(l, err)
	n := 0
	for _, h := range found {
		if h.VerifiedAt != nil {
			n++
		}
	}
	return n
}

// floodArchives creates perSecond new archives of a host until stop, behind its archive "m" and
// before its archive "z". They cost the test less than uploads would.
func (l *lab) floodArchives(host string, perSecond int) (stop func()) {
	l.Helper()
	dir := filepath.Dir(l.StoredPath(key(host, "x")))
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			case <-time.After(time.Second / time.Duration(perSecond)):
			}
			path := filepath.Join(dir, fmt.Sprintf("n%08d.tar.zst", i))
			if os.WriteFile(path, []byte("x"), 0o640) == nil {
				os.Chtimes(path, time.Now(), time.Now())
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// TestNoHostKeepsTheScrubFromOthers: one host has archives that are expensive to decode,
// a second one sends archives faster than they can be read, and the third one's are read
// within its share of the budget. The scrub ends while the flood continues.
func TestNoHostKeepsTheScrubFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20 // so a second is a MiB of the budget
		l := newLab(t, func(c *diskbackend.Config) { c.Scrub.Rate = rate })
		bomb := packBomb(t, 1, 64<<20) // costs 4 MiB
		for i := range 24 {
			l.WantReceipt(key("a-bombs", fmt.Sprintf("bomb-%02d", i)), bomb, wire.Stored)
		}
		for _, name := range []string{"a", "m", "z"} {
			l.WantReceipt(key("b-floods", name), packNoise(1000, 1), wire.Stored)
		}
		var honest []string
		for i := range 20 {
			name := fmt.Sprintf("run-%02d", i)
			l.WantReceipt(key("c-honest", name), packNoise(1000, byte(i)), wire.Stored)
			honest = append(honest, name)
		}
		stop := l.startScrub()
		time.Sleep(5*time.Minute - time.Second)
		unflood := l.floodArchives("b-floods", 50) // at most 16 can be read
		// A turn of each other host, with the archive at its end, and the ordinary host's own
		// archives: at most 20 files.
		time.Sleep(time.Second + (32+4+4+2)*time.Second)
		if n := l.countVerified("c-honest", honest...); n != len(honest) {
			t.Errorf("%d of %d archives were read within the budget", n, len(honest))
		}
		if p := l.inspect().Scrub; !p.Ended.IsZero() {
			t.Errorf("the bombs cost nothing: %+v", p)
		}
		time.Sleep((24*4 + 10) * time.Second)
		p := l.inspect().Scrub
		if p.Ended.IsZero() || p.WholeSince.IsZero() || p.Expanding != 24 {
			t.Errorf("the flood keeps the scrub from its end: %+v", p)
		}
		unflood()
		stop()
	})
}

// TestABombIsDecodedOnce: only the first of three passes decodes it, and all of them read and
// verify it. The log names it once.
func TestABombIsDecodedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *diskbackend.Config) { c.Scrub.Rate = 1 << 20 })
		var log bytes.Buffer
		l.log = slog.NewTextHandler(&log, nil)
		l.restart(func() {})
		bomb := packBomb(t, 1, 64<<20)
		l.WantReceipt(key("lab-01", "bomb"), bomb, wire.Stored)
		bad := bytes.Clone(bomb)
		bad[len(bad)-1] ^= 1
		l.WantReceipt(key("lab-01", "undecodable"), bad, wire.Stored)
		if h := l.queryInventory(queryFor("bomb", bomb), true); h.State != wire.Present || h.VerifiedAt != nil || h.Undecodable {
			t.Errorf("a host had it decoded at once: %+v", h)
		}
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		var last *wire.Timestamp
		for round := range 3 {
			p := l.inspect().Scrub
			cost := p.Ended.Sub(p.Started)
			if decoded := cost > 10*time.Second; p.Ended.IsZero() || decoded != (round == 0) || p.Expanding != 2 || p.Undecodable != 1 {
				t.Errorf("round %d took %v: %+v", round, cost, p)
			}
			h := l.queryInventory(queryFor("bomb", bomb), false)
			if h.VerifiedAt == nil || h.Contents == nil || last != nil && !h.VerifiedAt.After(last.Time) {
				t.Fatalf("round %d: %+v", round, h)
			}
			last = h.VerifiedAt
			time.Sleep(l.cfg.Scrub.Interval.Std())
		}
		stop()
		if h := l.queryInventory(queryFor("bomb", bomb), true); h.VerifiedAt == nil || h.Contents == nil || !h.VerifiedAt.After(last.Time) {
			t.Errorf("its host asks afterwards: %+v", h)
		}
		if h := l.queryInventory(queryFor("undecodable", bad), true); !h.Undecodable || h.VerifiedAt != nil {
			t.Errorf("the undecodable one: %+v", h)
		}
		if n := strings.Count(log.String(), "archive expands unusually"); n != 2 {
			t.Errorf("the log names two archives %d times:\n%s", n, log.String())
		}
		l.CorruptStored(key("lab-01", "bomb"))
		if h := l.queryInventory(queryFor("bomb", bomb), true); h.State != wire.StateDamaged {
			t.Errorf("damage is not seen: %+v", h)
		}
	})
}

// TestRestartsDoNotLetOneArchiveBlockTheScrub: each restart comes before the end of a bomb's
// decoding, and the others are still read.
func TestRestartsDoNotLetOneArchiveBlockTheScrub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *diskbackend.Config) { c.Scrub.Rate = 64 << 10 })
		l.WantReceipt(key("a-bombs", "bomb"), packBomb(t, 1, 64<<20), wire.Stored) // takes 64 s
		l.WantReceipt(key("b-honest", "run-1"), packNoise(1000, 1), wire.Stored)
		for range 2 {
			stop := l.startScrub()
			time.Sleep(5*time.Minute + 20*time.Second)
			stop()
			l.restart(func() {})
		}
		if n := l.countVerified("b-honest", "run-1"); n != 1 {
			t.Error("the honest host's archive was not read")
		}
	})
}

// TestScrubContinuesFromAnOlderPosition: hosts whose names come before the position are
// read already.
func TestScrubContinuesFromAnOlderPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		for _, host := range []string{"a", "b", "c"} {
			for i, name := range []string{"1", "2"} {
				l.WantReceipt(key(host, name), packNoise(1000, byte(i)), wire.Stored)
			}
		}
		time.Sleep(time.Minute)
		l.restart(func() {
			disk, err := diskbackend.VolumeOf(l.cfg)
			fixture.Must(t, err)
			older, err := json.Marshal(map[string]any{
				"started": time.Now(), "host_id": "b", "episode_id": "1",
				"objects": 3, "decoded": true, "disk": disk.ID(),
			})
			fixture.Must(t, err)
			fixture.Must(t, os.WriteFile(filepath.Join(l.Data, "scrub.json"), older, 0o640))
		})
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		if p := l.inspect().Scrub; p.Objects != 6 || p.WholeSince.IsZero() {
			t.Errorf("got %+v", p)
		}
		if n := l.countVerified("a", "1", "2") + l.countVerified("b", "1"); n != 0 {
			t.Errorf("%d archives before the position were read again", n)
		}
	})
}

// TestOlderProgramsReadThePositionAsABeginning: they go by names, and would consider all hosts
// before the position read.
func TestOlderProgramsReadThePositionAsABeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *diskbackend.Config) { c.Scrub.Rate = 64 << 10 })
		for host := range 300 {
			l.WantReceipt(key(strings.Repeat("h", 124)+fmt.Sprint(host), strings.Repeat("e", 128)), packNoise(10, 1), wire.Stored)
		}
		stop := l.startScrub()
		time.Sleep(5*time.Minute + 280*time.Second)
		stop()
		b, err := os.ReadFile(filepath.Join(l.Data, "scrub.json"))
		fixture.Must(t, err)
		var p struct {
			Host  string `json:"host_id"`
			Hosts []any  `json:"hosts"`
		}
		fixture.Must(t, json.Unmarshal(b, &p))
		if p.Host != "" || len(p.Hosts) != 200 || len(b) > 64<<10 {
			t.Errorf("%d bytes, position %q, %d hosts", len(b), p.Host, len(p.Hosts))
		}
		l.restart(func() {})
		stop = l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		if p := l.inspect().Scrub; p.Ended.IsZero() || p.WholeSince.IsZero() {
			t.Errorf("the next start does not go on: %+v", p)
		}
	})
}

// TestOneHostsFindingsDoNotHideAnothers in the log.
func TestOneHostsFindingsDoNotHideAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		var log bytes.Buffer
		l.log = slog.NewTextHandler(&log, nil)
		l.restart(func() {})
		for i := range 30 {
			l.WantReceipt(key("a-noisy", fmt.Sprintf("run-%02d", i)), fixture.Noise(10, byte(i)), wire.Stored)
		}
		l.WantReceipt(key("b-quiet", "run-1"), fixture.Noise(10, 1), wire.Stored)
		log.Reset()
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		text := log.String()
		if n := strings.Count(text, "stored archive cannot be decoded"); n != 11 || !strings.Contains(text, "host=b-quiet") || !strings.Contains(text, "others=20") {
			t.Errorf("%d archives are named:\n%s", n, text)
		}
		if p := l.inspect().Scrub; p.Undecodable != 31 {
			t.Errorf("got %+v, want Undecodable 31", p)
		}
	})
}
