// Package fleet keeps the last report of each host at the receiver, and judges it: which hosts are
// silent, which disks fill, what was made and has not arrived.
//
//	reports/<host>.report    a [Record], in JSON
//	reports/.receiver        when the receiver started, and its own free space by the hour
//
// [Reports] writes them for the daemon. [Read] and [ReadReceiver] are for the commands, which ask no
// daemon.
//
// Invariant: nothing depends on a record. It is written without fsync, a host has one of bounded
// size, and one that is missing or damaged is made again by the next report.
package fleet

import (
	"errors"
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
	suffix       = ".report"   // not that of other files with the name of a host
	receiverName = ".receiver" // not a valid name of a host
)

// Limits of the records.
const (
	maxHosts    = 4096
	maxRecord   = 32 << 10
	maxGaps     = 8
	maxMachines = 4
	maxSamples  = 8 * 24
	sampleEvery = 55 * time.Minute // so that a caller with an hour is never too early

	// MinInterval is the minimum time between two reports of a host that are kept. A report of
	// another machine is kept sooner, so that one machine cannot hide another.
	MinInterval     = 5 * time.Second
	minOtherMachine = time.Second

	minGap        = 5 * time.Minute     // shorter ones are of an operator
	cloneMemory   = 24 * time.Hour      // in which two machines must report in turn
	forgetAfter   = 90 * 24 * time.Hour // if there are too many hosts
	maxClockAhead = time.Minute         // a report from further in the future is of another clock
	countShare    = 100                 // counting takes at most this part of the time
	changeSettled = 2 * time.Second     // a directory may change again without another time
	maxCounts     = 1                   // at once, of all hosts
)

// Record is what is kept of a host.
type Record struct {
	Version    int         `json:"schema_version"` // 1
	Report     wire.Report `json:"report"`
	ReceivedAt time.Time   `json:"received_at"`
	// ClockSkew is the host's clock minus the receiver's when the report arrived, in seconds.
	ClockSkew float64 `json:"clock_skew_seconds"`
	// Stored is how many archives of the host the receiver had at CountedAt, which is zero if they
	// were not counted. LastChange is when its directory had changed last.
	Stored     int64     `json:"stored"`
	CountedAt  time.Time `json:"counted_at,omitzero"`
	CountTook  int64     `json:"count_took_ms,omitempty"`
	LastChange time.Time `json:"last_change_at,omitzero"`
	// Gaps are the seconds between the last reports of a host that is started by a timer.
	Gaps []int64 `json:"gaps,omitempty"`
	// Machines are those that reported with the host's certificate, the last one first. ReturnedAt is
	// when one of them last reported after another one, and ClonedAt when that happened again.
	Machines   []Machine `json:"machines,omitempty"`
	ReturnedAt time.Time `json:"returned_at,omitzero"`
	ClonedAt   time.Time `json:"cloned_at,omitzero"`
	// Samples are free bytes of the host's disk, one per hour, of the last week.
	Samples []Sample `json:"free_bytes_by_hour,omitempty"`
}

// Machine is a machine until its next boot.
type Machine struct {
	Instance string    `json:"instance"`
	LastAt   time.Time `json:"last_at"`
}

// Sample is the free space at a time.
type Sample struct {
	At   int64 `json:"at"` // Unix time
	Free int64 `json:"free"`
}

// Count is what the store has of a host.
type Count struct {
	Archives   int64
	LastChange time.Time // of the host's directory; zero if there is none
}

// CountFunc counts the archives of a host. It returns false if its directory last changed at
// lastChange, because then it need not count.
type CountFunc func(host episode.Name, lastChange time.Time) (Count, bool, error)

// Reports writes the records. It is safe for concurrent use.
type Reports struct {
	data     *durable.Dir
	count    CountFunc
	counting chan struct{} // held while archives are counted

	mu       sync.Mutex
	dir      *durable.Dir          // guarded by mu; nil if it could not be opened yet
	busy     map[episode.Name]bool // guarded by mu; hosts whose record is being written
	receiver Receiver              // guarded by mu
}

// Receiver is what is kept of the receiver itself.
type Receiver struct {
	Version   int       `json:"schema_version"` // 1
	StartedAt time.Time `json:"started_at"`
	SharedAt  time.Time `json:"shared_at,omitzero"` // when the reports to other receivers were last read
	// SharedSince is when they were first read, or were read again after an outage.
	SharedSince time.Time `json:"shared_since,omitzero"`
	Samples     []Sample  `json:"free_bytes_by_hour,omitempty"`
}

// Open opens the records in a data directory, which stays the caller's, for a receiver that starts
// now. It returns an error wrapping [durable.ErrFault] if the storage cannot be trusted. Any other
// error is of no consequence: the next report tries again.
func Open(data *durable.Dir, count CountFunc, now time.Time) (*Reports, error) {
	r := &Reports{data: data, count: count, counting: make(chan struct{}, maxCounts), busy: make(map[episode.Name]bool)}
	r.receiver.StartedAt = now.UTC().Truncate(time.Second)
	dir, err := r.openDir()
	if err != nil {
		return r, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	former, _ := readReceiver(dir) // a damaged file is made again
	r.receiver.Samples = former.Samples
	return r, r.writeReceiver()
}

// openDir returns the directory of the records, which it creates durably if it is missing.
func (r *Reports) openDir() (*durable.Dir, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == nil {
		dir, err := r.data.MakeDir(dirName)
		if err != nil {
			return nil, err
		}
		r.dir = dir
	}
	return r.dir, nil
}

// Close closes the directory of the records. No other method may be in use.
func (r *Reports) Close() error {
	if r.dir == nil {
		return nil
	}
	return r.dir.Close()
}

// Add keeps the report of a host that arrived at now. It reports whether it shows for the first time in
// a day that two machines use the host's certificate. It refuses a report that comes too soon after
// the last one, and a new host when there are too many, with a [*wire.Problem].
func (r *Reports) Add(host episode.Name, report wire.Report, now time.Time) (cloned bool, err error) {
	dir, err := r.openDir()
	if err != nil {
		return false, err
	}
	if !r.reserveHost(host) {
		return false, &wire.Problem{Code: wire.HostBusy, Detail: "another report of this host is being kept", RetryAfter: MinInterval}
	}
	defer r.releaseHost(host)
	skew := clockSkew(report.At, now)
	now = now.UTC().Truncate(time.Second)
	record, err := readRecord(dir, host)
	if errors.Is(err, fs.ErrNotExist) {
		err = checkRoom(dir, now)
	} else if errors.Is(err, ErrInvalid) {
		record, err = Record{}, nil
	}
	if err != nil {
		return false, err
	}
	if record.isAhead(now) {
		record.ReceivedAt, record.Gaps, record.Machines, record.ReturnedAt = time.Time{}, nil, nil, time.Time{}
	}
	if err := record.checkWait(report, now); err != nil {
		return false, err
	}
	before := record.ClonedAt
	record.addReport(report, now)
	record.ClockSkew = skew
	r.countArchives(host, &record, now)
	cloned = record.ClonedAt.Equal(now) && now.Sub(before) >= cloneMemory
	return cloned, writeJSON(dir, string(host)+suffix, record)
}

// reserveHost reserves the record of a host, or returns false if it is being written.
func (r *Reports) reserveHost(host episode.Name) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[host] {
		return false
	}
	r.busy[host] = true
	return true
}

func (r *Reports) releaseHost(host episode.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, host)
}

// countArchives counts what is stored, if that has changed, and unless it would take too large a part of
// the time.
func (r *Reports) countArchives(host episode.Name, record *Record, now time.Time) {
	if now.Sub(record.CountedAt) < countShare*time.Duration(record.CountTook)*time.Millisecond {
		return
	}
	select {
	case r.counting <- struct{}{}:
		defer func() { <-r.counting }()
	default:
		return // another host's; the next report tries again
	}
	last := record.LastChange
	if record.CountedAt.Sub(last) < changeSettled {
		last = time.Time{} // it may have changed since without another time
	}
	begun := time.Now()
	count, counted, err := r.count(host, last)
	if err != nil {
		record.CountedAt = time.Time{}
		return
	}
	if counted {
		record.Stored, record.LastChange = count.Archives, count.LastChange
	}
	record.CountedAt, record.CountTook = now, time.Since(begun).Milliseconds()
}

// clockSkew returns by how many seconds the host's clock is ahead, or 0 if it does not say.
func clockSkew(host, now time.Time) float64 {
	if host.IsZero() {
		return 0
	}
	return host.Sub(now).Round(time.Millisecond).Seconds()
}

// isAhead reports whether the clock went back after the record was written.
func (r *Record) isAhead(now time.Time) bool { return r.ReceivedAt.After(now.Add(maxClockAhead)) }

// checkWait returns a [*wire.Problem] if a report comes too soon after the last one.
func (r *Record) checkWait(report wire.Report, now time.Time) error {
	if wait := r.waitFor(report, now); wait > 0 {
		return &wire.Problem{Code: wire.HostBusy, Detail: "this host has just reported", RetryAfter: wait}
	}
	return nil
}

// waitFor returns for how long the next report must wait, or 0.
func (r *Record) waitFor(report wire.Report, now time.Time) time.Duration {
	least := MinInterval
	if report.Instance != r.Report.Instance {
		least = minOtherMachine
	}
	if r.ReceivedAt.IsZero() {
		return 0
	}
	return r.ReceivedAt.Add(least).Sub(now)
}

// addReport adds a report to what is known.
func (r *Record) addReport(report wire.Report, now time.Time) {
	if gap := now.Sub(r.ReceivedAt); !r.ReceivedAt.IsZero() && gap >= minGap && report.Interval == 0 && r.Report.Interval == 0 {
		r.Gaps = lastOf(append(r.Gaps, int64(gap/time.Second)), maxGaps)
	}
	r.addMachine(report.Instance, now)
	if report.Disk.SizeBytes > 0 {
		r.Samples = addSample(r.Samples, Sample{now.Unix(), report.Disk.FreeBytes})
	}
	r.Version, r.Report, r.ReceivedAt = 1, report, now
}

// addMachine notices two machines that report in turn. A machine that reboots is another one, and never
// the former one again; one that goes back to a snapshot may be that once.
func (r *Record) addMachine(instance string, now time.Time) {
	if instance == "" {
		return
	}
	i := slices.IndexFunc(r.Machines, func(m Machine) bool { return m.Instance == instance })
	if i > 0 && now.Sub(r.Machines[i].LastAt) < cloneMemory {
		if now.Sub(r.ReturnedAt) < cloneMemory {
			r.ClonedAt = now
		}
		r.ReturnedAt = now
	}
	others := slices.DeleteFunc(slices.Clone(r.Machines), func(m Machine) bool { return m.Instance == instance })
	r.Machines = append([]Machine{{instance, now}}, others[:min(len(others), maxMachines-1)]...)
}

// addSample adds a sample, unless the last one is younger than an hour. Samples of the future are of a
// clock that went back.
func addSample(samples []Sample, s Sample) []Sample {
	samples = slices.DeleteFunc(slices.Clone(samples), func(old Sample) bool { return old.At > s.At })
	if n := len(samples); n > 0 && s.At-samples[n-1].At < int64(sampleEvery/time.Second) {
		return samples
	}
	return lastOf(append(samples, s), maxSamples)
}

// lastOf returns the last n elements of s, in an array of their own.
func lastOf[T any](s []T, n int) []T { return slices.Clone(s[max(0, len(s)-n):]) }

// AddSpace keeps the free space of the receiver's disk, once per hour.
func (r *Reports) AddSpace(free int64, now time.Time) error {
	if _, err := r.openDir(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.receiver.Samples = addSample(r.receiver.Samples, Sample{now.Unix(), free})
	return r.writeReceiver()
}

// writeReceiver writes what is kept of the receiver. The caller must hold r.mu.
func (r *Reports) writeReceiver() error {
	r.receiver.Version = 1
	return writeJSON(r.dir, receiverName, r.receiver)
}

// checkRoom returns an error unless there is room for the record of one more host. It removes those of
// hosts that have not reported for long.
func checkRoom(dir *durable.Dir, now time.Time) error {
	n := 0
	err := eachRecord(dir, func(episode.Name) { n++ })
	if err != nil || n < maxHosts {
		return err
	}
	var old []episode.Name
	err = eachRecord(dir, func(host episode.Name) {
		if r, err := readRecord(dir, host); errors.Is(err, ErrInvalid) || err == nil && now.Sub(r.ReceivedAt) > forgetAfter {
			old = append(old, host)
		}
	})
	if err != nil {
		return err
	}
	for _, host := range old {
		err = errors.Join(err, removeRecord(dir, host))
	}
	if err == nil && len(old) == 0 {
		return wire.Refuse(wire.Full, "this receiver keeps the reports of %d hosts", maxHosts)
	}
	return err
}

// Forget removes the records of hosts, if there are any. It may run beside a receiver.
func Forget(data *durable.Dir, hosts ...episode.Name) error {
	dir, err := data.OpenDir(dirName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, host := range hosts {
		err = errors.Join(err, removeRecord(dir, host))
	}
	return err
}

func removeRecord(dir *durable.Dir, host episode.Name) error {
	if err := dir.Unlink(string(host) + suffix); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// eachRecord calls f for each host that has a record.
func eachRecord(dir *durable.Dir, f func(host episode.Name)) error {
	for e, err := range dir.Names() {
		if err != nil {
			return err
		}
		name, found := strings.CutSuffix(e.Name(), suffix)
		if host, err := episode.ParseName(name); found && err == nil {
			f(host)
		}
	}
	return nil
}

// Layout describes the names of the records.
func Layout() durable.Layout {
	return durable.Layout{{
		Match: durable.MatchNames(dirName), Perm: 0o750, Dir: true,
		Below: durable.Layout{
			{Match: durable.MatchNames(receiverName, durable.TempName(receiverName)), Perm: 0o640},
			{Match: func(name string) bool {
				host, found := strings.CutSuffix(strings.TrimSuffix(strings.TrimPrefix(name, "."), ".tmp"), suffix)
				_, err := episode.ParseName(host)
				return found && err == nil
			}, Perm: 0o640},
		},
	}}
}
