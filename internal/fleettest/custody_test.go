package fleettest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"cis490/internal/bucket"
	"cis490/internal/fixture"
)

// ledger has what the hosts were told.
type ledger struct {
	mu        sync.Mutex
	acked     map[string]string // sha256 by "host/episode"
	sent      map[string]bool   // the same of all that hosts tried to send
	acks      int
	conflicts int
	twice     []string          // episodes that were acknowledged with two digests
	contents  map[string][]byte // of objects that were read, by name and ETag; archives have their sha256
}

func newLedger() *ledger {
	return &ledger{acked: make(map[string]string), sent: make(map[string]bool), contents: make(map[string][]byte)}
}

func (l *ledger) ack(key, sha string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if of, known := l.acked[key]; known && of != sha {
		l.twice = append(l.twice, key)
	}
	l.acked[key] = sha
	l.acks++
}

func (l *ledger) begin(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[key] = true
}

func (l *ledger) conflict() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conflicts++
}

// breaches counts what must not be.
type breaches struct{ lost, withoutRow, twice, twoDigests int }

// read returns the content of an object, and that of an archive as its sha256. What has the ETag of an
// earlier check is not read again.
func (l *ledger) read(t testing.TB, in bucket.Bucket, info bucket.Info) []byte {
	t.Helper()
	id := info.Name + " " + info.ETag
	if known, ok := l.contents[id]; ok {
		return known
	}
	r, _, err := in.Open(t.Context(), info.Name)
	fixture.Must(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	fixture.Must(t, err)
	if strings.HasPrefix(info.Name, "episodes/") {
		sum := sha256.Sum256(b)
		b = []byte(hex.EncodeToString(sum[:]))
	}
	l.contents[id] = b
	return b
}

// list returns the objects whose names begin with prefix, in order.
func list(t testing.TB, in bucket.Bucket, prefix string) []bucket.Info {
	t.Helper()
	var all []bucket.Info
	for info, err := range in.List(t.Context(), prefix, "") {
		fixture.Must(t, err)
		all = append(all, info)
	}
	return all
}

// row is what the test reads of a row.
type row struct {
	Host     string `json:"host_id"`
	Episode  string `json:"episode_id"`
	SHA256   string `json:"sha256"`
	Size     int64  `json:"size_bytes"`
	Repaired bool   `json:"repaired"`
	At       string `json:"received_at_wall"`
}

// check counts the breaches of custody: an acknowledged episode without its archive is lost.
func (l *ledger) check(t testing.TB, in bucket.Bucket) breaches {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := breaches{twoDigests: len(l.twice)}
	rows, digests := map[string]int{}, map[string]string{}
	for i, info := range list(t, in, "log/") {
		if want := fmt.Sprintf("log/%010d.jsonl", i+1); info.Name != want {
			t.Fatalf("batch %d is %s, want %s", i+1, info.Name, want)
		}
		for line := range strings.Lines(string(l.read(t, in, info))) {
			var r row
			fixture.Must(t, json.Unmarshal([]byte(line), &r))
			rows[r.Host+"/"+r.Episode]++
			digests[r.Host+"/"+r.Episode] = r.SHA256
		}
	}
	archives := map[string]string{}
	for _, info := range list(t, in, "episodes/") {
		archives[info.Name] = string(l.read(t, in, info))
	}
	commits := map[string]string{}
	for _, info := range list(t, in, "commits/") {
		var c struct {
			Row    row    `json:"row"`
			Object string `json:"object"`
		}
		fixture.Must(t, json.Unmarshal(l.read(t, in, info), &c))
		if archives[c.Object] == c.Row.SHA256 {
			commits[c.Row.Host+"/"+c.Row.Episode] = c.Row.SHA256
		}
	}
	for key, sha := range l.acked {
		switch {
		case commits[key] != sha:
			b.lost++
			t.Logf("lost: %s, sha256 %s", key, sha)
		case digests[key] != sha:
			b.withoutRow++
		}
	}
	for key := range l.sent { // of two recordings one must be stored
		if l.acked[key] == "" {
			t.Errorf("%s: nothing was acknowledged", key)
		}
	}
	for key, n := range rows {
		if n > 1 {
			b.twice++
			t.Logf("%d rows: %s", n, key)
		}
	}
	return b
}
