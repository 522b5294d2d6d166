// Package fleet keeps the last report of each host at the receiver, and judges it: which hosts are
// silent, which disks fill, what was made and has not arrived.
//
//	reports/<host>.report    a [Record], in JSON
//	reports/.space           free space of the receiver's own disk, by the hour
//
// [Book] writes them for the daemon. [Read] and [ReadSpace] are for the commands, which ask no daemon.
//
// Invariant: nothing depends on a record. It is written without fsync, a host has one of bounded
// size, and one that is missing or damaged is made again by the next report.
package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// dirName is the directory of the records in the data directory.
const dirName = "reports"

const (
	suffix    = ".report" // not that of other files with the name of a host
	spaceName = ".space"
)

// Limits of the records.
const (
	maxHosts      = 4096
	maxRecord     = 32 << 10
	maxGaps       = 8
	maxSamples    = 8 * 24
	sampleEvery   = 55 * time.Minute // so that a caller with an hour is never too early
	cloneMemory   = 24 * time.Hour
	MinInterval   = 5 * time.Second // between two reports of a host that are kept
	maxClockAhead = time.Minute     // a record from further in the future is made again
)

// Record is what is kept of a host.
type Record struct {
	Version    int         `json:"schema_version"` // 1
	Report     wire.Report `json:"report"`
	ReceivedAt time.Time   `json:"received_at"`
	// ClockSkew is the host's clock minus the receiver's when the report arrived, in seconds.
	ClockSkew float64 `json:"clock_skew_seconds"`
	// Stored is how many archives of the host the receiver had when the report arrived, and LastArrival
	// when the last of them came.
	Stored      int64     `json:"stored"`
	LastArrival time.Time `json:"last_arrival_at,omitzero"`
	// Gaps are the seconds between the last reports.
	Gaps []int64 `json:"gaps,omitempty"`
	// Former is the machine that reported before the present one, until FormerAt. ClonedAt is when two
	// machines were last seen to report in turn.
	Former   string    `json:"former_instance,omitempty"`
	FormerAt time.Time `json:"former_at,omitzero"`
	ClonedAt time.Time `json:"cloned_at,omitzero"`
	// Samples are free bytes of the host's disk, one per hour, of the last week.
	Samples []Sample `json:"free_bytes_by_hour,omitempty"`
}

// Sample is the free space at a time.
type Sample struct {
	At   int64 `json:"at"` // Unix time
	Free int64 `json:"free"`
}

// Count is what the store has of a host.
type Count struct {
	Archives    int64
	LastArrival time.Time // zero if there is none
}

// CountFunc counts the archives of a host. It returns false if the last of them came at lastArrival,
// because then it need not count.
type CountFunc func(host episode.Name, lastArrival time.Time) (Count, bool, error)

// Book writes the records. It is safe for concurrent use.
type Book struct {
	dir   *durable.Dir
	count CountFunc

	mu      sync.Mutex // held while a file is read and written
	spaceAt time.Time  // of the last sample of the receiver's space
}

// Open opens the records in a data directory, and creates their directory durably if it is missing.
func Open(data *durable.Dir, count CountFunc) (*Book, error) {
	dir, err := data.MakeDir(dirName)
	if err != nil {
		return nil, err
	}
	return &Book{dir: dir, count: count}, nil
}

// Close closes the directory of the records.
func (b *Book) Close() error { return b.dir.Close() }

// News is what a report showed for the first time.
type News struct {
	Cloned bool // two machines use the certificate of the host
}

// Note keeps the report of a host that arrived at now. It refuses one that comes too soon after the
// last one, and a new host when there are too many, with a [*wire.Problem].
func (b *Book) Note(host episode.Name, r wire.Report, now time.Time) (News, error) {
	skew := clockSkew(r.At, now)
	now = now.UTC().Truncate(time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	record, err := readRecord(b.dir, host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if n, err := b.countRecords(); err != nil || n >= maxHosts {
			return News{}, cmpErr(err, wire.Refuse(wire.Full, "this receiver keeps the reports of %d hosts", maxHosts))
		}
	case err != nil || record.ReceivedAt.After(now.Add(maxClockAhead)):
		record = Record{}
	}
	if wait := record.ReceivedAt.Add(MinInterval).Sub(now); wait > 0 && !record.ReceivedAt.IsZero() {
		return News{}, &wire.Problem{Code: wire.HostBusy, Detail: "this host has just reported", RetryAfter: wait}
	}
	before := record
	record.add(r, now)
	record.ClockSkew = skew
	if count, changed, err := b.count(host, before.LastArrival); err == nil && changed {
		record.Stored, record.LastArrival = count.Archives, count.LastArrival
	}
	text, err := json.Marshal(record)
	if err != nil {
		return News{}, fmt.Errorf("report of %s: %w", host, err)
	}
	if err := b.dir.WriteFileNoSync(string(host)+suffix, append(text, '\n'), 0o640); err != nil {
		return News{}, err
	}
	return News{Cloned: record.ClonedAt.Equal(now) && before.ClonedAt.Before(now.Add(-cloneMemory))}, nil
}

func cmpErr(err error, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// clockSkew returns by how many seconds the host's clock is ahead, or 0 if it does not say.
func clockSkew(host, now time.Time) float64 {
	if host.IsZero() {
		return 0
	}
	return host.Sub(now).Round(time.Millisecond).Seconds()
}

func (b *Book) countRecords() (n int, err error) {
	for _, err := range b.dir.Names() {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// spaceFile is the content of the file about the receiver's own disk.
type spaceFile struct {
	Version int      `json:"schema_version"` // 1
	Samples []Sample `json:"free_bytes_by_hour"`
}

// NoteSpace keeps the free space of the receiver's disk, once per hour.
func (b *Book) NoteSpace(free int64, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if age := now.Sub(b.spaceAt); age >= 0 && age < sampleEvery {
		return nil
	}
	samples, _ := readSpace(b.dir) // a damaged file is made again
	samples = addSample(samples, Sample{now.Unix(), free})
	text, err := json.Marshal(spaceFile{1, samples})
	if err != nil {
		return err
	}
	if err := b.dir.WriteFileNoSync(spaceName, append(text, '\n'), 0o640); err != nil {
		return err
	}
	b.spaceAt = now
	return nil
}

// addSample adds a sample, unless the last one is younger than an hour.
func addSample(samples []Sample, s Sample) []Sample {
	if n := len(samples); n > 0 && s.At >= samples[n-1].At && s.At-samples[n-1].At < int64(sampleEvery/time.Second) {
		return samples
	}
	return lastOf(append(samples, s), maxSamples)
}

// ReadSpace returns the free space of the receiver's disk in the last week, of which there may be none.
func ReadSpace(data *durable.Dir) ([]Sample, error) {
	dir, err := data.OpenDir(dirName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readSpace(dir)
}

func readSpace(dir *durable.Dir) ([]Sample, error) {
	var content spaceFile
	if err := readJSON(dir, spaceName, &content); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	if content.Version != 1 || len(content.Samples) > maxSamples {
		return nil, fmt.Errorf("%s: not valid", dir.Path(spaceName))
	}
	return content.Samples, nil
}

// add adds a report to what is known.
func (r *Record) add(report wire.Report, now time.Time) {
	if !r.ReceivedAt.IsZero() {
		gap := max(0, int64(now.Sub(r.ReceivedAt)/time.Second))
		r.Gaps = lastOf(append(r.Gaps, gap), maxGaps)
	}
	if last := r.Report.Instance; last != report.Instance && last != "" {
		if report.Instance == r.Former && now.Sub(r.FormerAt) < cloneMemory {
			r.ClonedAt = now
		}
		r.Former, r.FormerAt = last, r.ReceivedAt
	}
	r.Samples = addSample(r.Samples, Sample{now.Unix(), report.Disk.FreeBytes})
	r.Version, r.Report, r.ReceivedAt = 1, report, now
}

// lastOf returns the last n elements of s, in an array of their own.
func lastOf[T any](s []T, n int) []T { return slices.Clone(s[max(0, len(s)-n):]) }

// Read returns the records in a data directory by host. Its error is of those that cannot be read; the
// map has the others. It changes nothing, and may run beside a receiver.
func Read(data *durable.Dir) (map[episode.Name]Record, error) {
	records := make(map[episode.Name]Record)
	dir, err := data.OpenDir(dirName)
	if errors.Is(err, fs.ErrNotExist) {
		return records, nil // no host has reported
	}
	if err != nil {
		return records, err
	}
	defer dir.Close()
	var errs []error
	for e, err := range dir.Names() {
		if err != nil {
			return records, errors.Join(append(errs, err)...)
		}
		name, found := strings.CutSuffix(e.Name(), suffix)
		host, err := episode.ParseName(name)
		if !found || err != nil {
			continue // a temporary file
		}
		r, err := readRecord(dir, host)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		records[host] = r
	}
	return records, errors.Join(errs...)
}

func readRecord(dir *durable.Dir, host episode.Name) (Record, error) {
	var r Record
	name := string(host) + suffix
	if err := readJSON(dir, name, &r); err != nil {
		return Record{}, err
	}
	if r.Version != 1 || r.Stored < 0 || len(r.Gaps) > maxGaps || len(r.Samples) > maxSamples || r.Report.Validate() != nil {
		return Record{}, fmt.Errorf("%s: not valid", dir.Path(name))
	}
	return r, nil
}

// readJSON reads a file into v. The error wraps [fs.ErrNotExist] if there is none.
func readJSON(dir *durable.Dir, name string, v any) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := durable.ReadAtMost(f, dir.Path(name), maxRecord)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: not valid JSON", dir.Path(name))
	}
	return nil
}

// Layout describes the names of the records.
func Layout() durable.Layout {
	return durable.Layout{{
		Match: durable.MatchNames(dirName), Perm: 0o750, Dir: true,
		Below: durable.Layout{{Match: func(name string) bool {
			name = strings.TrimSuffix(strings.TrimPrefix(name, "."), ".tmp")
			host, found := strings.CutSuffix(name, suffix)
			_, err := episode.ParseName(host)
			return found && err == nil || "."+name == spaceName || name == spaceName
		}, Perm: 0o640}},
	}}
}
