package backlog

import (
	"cmp"
	"context"
	"errors"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/settling"
	"cis490/internal/source"
)

// Status is the state of the directories at one moment.
type Status struct {
	Host    episode.Name `json:"host_id"`
	Running string       `json:"running"` // which process has the lock; empty if none, or if unknown
	// RunningUnknown reports that this user may not read the lock.
	RunningUnknown bool `json:"running_unknown,omitempty"`

	Waiting int `json:"waiting"` // finished, not packed
	Sealed  int `json:"sealed"`  // packed, not delivered
	// Settling is how many of Waiting changed too recently to be packed.
	Settling    int           `json:"settling"`
	SealedBytes int64         `json:"sealed_bytes"` // of Sealed
	Held        []HeldEpisode `json:"held"`
	// HeldTotal counts Held and Unshippable: all that needs an operator.
	HeldTotal int `json:"held_total"`
	// OldestWaiting is since when the oldest of Waiting and Sealed has been waiting.
	OldestWaiting time.Time `json:"oldest_waiting_at,omitzero"`
	// Failing are waiting episodes that failed and will be retried, those first that have failed
	// longest, of FailingTotal. FailingTotal counts what the last shipper knew, without those
	// that do not wait any more.
	Failing      []outbox.Failure `json:"failing"`
	FailingTotal int              `json:"failing_total"`
	// Receiver is nil while the receiver accepts uploads, as far as the last shipper knew.
	Receiver *outbox.ReceiverOutage `json:"receiver_down,omitempty"`
	// ReceiverState says whether the receiver accepts what this host sends.
	ReceiverState ReceiverState `json:"receiver_state"`
	// AnsweredAt is when the receiver last accepted something, as far as is known. Zero is unknown.
	AnsweredAt time.Time `json:"receiver_answered_at,omitzero"`
	// ReportedAt is when a shipper reported what the directories do not say: Failing, Receiver and
	// AnsweredAt. It is zero if there was nothing to report.
	ReportedAt  time.Time `json:"reported_at,omitzero"`
	ReportedBy  int       `json:"reported_by_pid,omitempty"`
	Unshippable []string  `json:"unshippable"` // entries that cannot even be held
	Progress
	Shipped   int     `json:"shipped"`   // in the shipped directory
	Changed   Changes `json:"changed"`   // of those
	Discarded int     `json:"discarded"` // deletions that have begun and not ended
	// Store is the adopted store of the receiver; nil if none is.
	Store *outbox.Store `json:"store,omitempty"`
	// StoreProblem says why the adopted store is unknown, and what to do. A shipper does not start.
	StoreProblem string `json:"store_problem,omitempty"`

	FreeBytes int64 `json:"free_bytes"`
	MinFree   int64 `json:"min_free"`
}

// Changes counts the retired episodes that are recorded as changed. A verify compares an episode
// and records that, and so does a prune before it deletes.
type Changes struct {
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest_noted_at,omitzero"`
	Newest time.Time `json:"newest_noted_at,omitzero"`
}

func (c *Changes) addChange(at time.Time) {
	c.Count++
	if c.Count == 1 || at.Before(c.Oldest) {
		c.Oldest = at
	}
	if at.After(c.Newest) {
		c.Newest = at
	}
}

// HeldEpisode is an episode that needs an operator.
type HeldEpisode struct {
	Episode episode.Name `json:"episode_id"`
	outbox.Hold
}

// Config says which directories to read.
type Config struct {
	Host    episode.Name
	Dirs    hostdir.Config
	Settle  time.Duration // see [settling.Survey]
	MinFree int64         // bytes
}

// reader reads the directories of a configuration.
type reader struct {
	Config
	dirs *hostdir.Dirs
	src  *source.Source // of dirs
	out  *outbox.Outbox // of dirs
}

func open(c Config) (*reader, error) {
	dirs, err := hostdir.Open(c.Dirs)
	if err != nil {
		return nil, err
	}
	return &reader{c, dirs, dirs.Source, dirs.Outbox}, nil
}

// InspectStatus reads the directories of c.
func InspectStatus(c Config) (Status, error) {
	s, err := open(c)
	if err != nil {
		return Status{}, err
	}
	defer s.dirs.Close()
	st := Status{
		Host: c.Host, MinFree: c.MinFree,
		Held: []HeldEpisode{}, Failing: []outbox.Failure{}, Unshippable: []string{}, Progress: Progress{Strays: []*source.StrayError{}},
	}
	holder, state, err := s.out.Holder()
	if err != nil {
		return st, err
	}
	st.RunningUnknown = state == durable.LockUnknown
	if state == durable.LockHeld {
		st.Running = cmp.Or(holder, "another process")
	}
	if st.FreeBytes, err = s.out.Dir().FreeBytes(); err != nil {
		return st, err
	}
	if store, err := s.out.ReadStore(); err != nil {
		st.StoreProblem = outbox.PrintableCause(err.Error())
	} else if store.ID != "" {
		st.Store = &store
	}
	if err := countShipped(s.src, &st); err != nil {
		return st, err
	}
	if st.Discarded, err = s.out.CountDiscarded(); err != nil {
		return st, err
	}
	reported, err := s.out.ReadReport()
	if err != nil {
		reported = outbox.Report{} // there is none, or it cannot be read
	}
	waits := make(map[episode.Name]bool)
	for _, f := range reported.Failing {
		waits[f.Episode] = false
	}
	if err := s.scanStatus(&st, waits); err != nil {
		return st, err
	}
	st.addReport(reported, waits)
	st.ReceiverState = st.receiverState(reported.Asking, time.Now())
	st.HeldTotal = len(st.Held) + len(st.Unshippable)
	return st, st.addUnnamed(s.src)
}

// ReceiverState is what a running shipper knows of the receiver.
type ReceiverState string

// The states. A running shipper pings or reports every few minutes.
const (
	ReceiverAnswers ReceiverState = "answers"
	ReceiverDown    ReceiverState = "down"    // it accepts nothing, or cannot be reached
	ReceiverAsked   ReceiverState = "asking"  // no response since the start
	ReceiverUnknown ReceiverState = "unknown" // no shipper runs, or it reports nothing
)

// Maximum ages of a report that counts as current. A shipper writes one after each ping, each
// report and each scan.
const (
	maxReportAge         = 10 * time.Minute
	maxReportAgeUnlocked = time.Minute // if it is unknown whether a shipper runs
)

// receiverState returns the state at now.
func (st *Status) receiverState(asking bool, now time.Time) ReceiverState {
	age, most := now.Sub(st.ReportedAt).Abs(), maxReportAge
	if st.RunningUnknown {
		most = maxReportAgeUnlocked
	}
	switch {
	case st.Running == "" && !st.RunningUnknown, st.ReportedAt.IsZero(), age > most:
		return ReceiverUnknown
	case st.Receiver != nil:
		return ReceiverDown
	case asking:
		return ReceiverAsked
	case st.AnsweredAt.IsZero():
		return ReceiverUnknown
	}
	return ReceiverAnswers
}

// addReport adds what a shipper reported, without episodes that do not wait any more.
func (st *Status) addReport(r outbox.Report, waits map[episode.Name]bool) {
	if r.IsEmpty() {
		return
	}
	st.ReportedAt, st.ReportedBy, st.Receiver = r.WrittenAt, r.PID, r.Receiver
	st.AnsweredAt = r.AnsweredAt
	if st.Receiver != nil {
		st.Receiver.Cause, st.Receiver.Hint = outbox.PrintableCause(st.Receiver.Cause), outbox.PrintableCause(st.Receiver.Hint)
	}
	st.FailingTotal = r.FailingTotal
	for _, f := range r.Failing {
		if !waits[f.Episode] {
			st.FailingTotal--
			continue
		}
		f.Cause = outbox.PrintableCause(f.Cause)
		st.Failing = append(st.Failing, f)
	}
	// Some of those that the report does not name may have succeeded since.
	st.FailingTotal = min(st.FailingTotal, st.Waiting+st.Sealed)
}

// scanStatus adds what the directories say, and sets in waits, by name, which episodes wait.
func (s *reader) scanStatus(st *Status, waits map[episode.Name]bool) error {
	report := func(err error) {
		if stray, ok := errors.AsType[*source.StrayError](err); ok {
			st.StraysTotal++
			if len(st.Strays) < MaxStrays {
				st.Strays = append(st.Strays, stray)
			}
			return
		}
		st.Unshippable = append(st.Unshippable, err.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), settlingCheckTimeout)
	defer cancel()
	for page := (Page{}); !page.IsLast; {
		var err error
		if page, err = ReadPage(s.dirs, page.Cursor, report); err != nil {
			return err
		}
		for _, e := range page.Episodes {
			if _, asked := waits[e.Name]; asked {
				waits[e.Name] = e.Stage == Pack || e.Stage == Send
			}
			if e.Stage == Nothing {
				st.addUnfinished(s.src, string(e.Name))
			} else {
				st.addFinished(e.MarkedAt)
			}
			if e.Stage == Pack || e.Stage == Send {
				st.OldestWaiting = earlierKnown(st.OldestWaiting, outbox.WholeSecond(e.ChangedAt))
			}
			switch e.Stage {
			case Pack:
				st.Waiting++
				if s.isSettling(ctx, e) {
					st.Settling++
				}
			case Send:
				st.Sealed++
				st.SealedBytes += e.Size
			case Held:
				hold, err := s.out.ReadHold(e.Name)
				if err != nil {
					continue // released meanwhile
				}
				st.Held = append(st.Held, HeldEpisode{e.Name, hold})
			}
		}
	}
	return nil
}

// settlingCheckTimeout bounds how long a status checks which episodes settle: the backlog may be
// large.
const settlingCheckTimeout = time.Second

// isSettling reports whether an episode is known to have changed too recently to be packed.
func (s *reader) isSettling(ctx context.Context, e Episode) bool {
	if _, settles := e.EarliestSettled(s.Settle, time.Now()); settles {
		return true
	}
	if s.Settle == 0 || ctx.Err() != nil {
		return false
	}
	tree, err := s.src.OpenTree(e.Name)
	if err != nil {
		return false // packing reports it
	}
	defer tree.Close()
	_, err = settling.Survey(ctx, tree, s.Settle, e.MarkedAt, nil)
	_, settles := errors.AsType[*settling.UnsettledError](err)
	return settles
}

func countShipped(src *source.Source, st *Status) error {
	for r, err := range src.AllRetired() {
		if err != nil {
			return err
		}
		st.Shipped++
		st.addFinished(r.MarkedAt)
		if r.Change != nil {
			st.Changed.addChange(r.Change.At)
		}
	}
	return nil
}

// MaxStrays is the maximum number of entries that never ship in a status, and in the log.
const MaxStrays = 100

// Progress is the part of [Status] about what is not finished or never ships.
type Progress struct {
	// Unfinished counts the directories without a marker. Oldest is the one in which no name has
	// changed for longest.
	Unfinished int                `json:"unfinished"`
	Oldest     *source.Unfinished `json:"oldest_unfinished,omitempty"`
	// LastFinished is the latest ctime of a marker, of what waits or is shipped: when it came to this
	// host, whatever its mtime.
	LastFinished time.Time `json:"last_finished_at,omitzero"`
	// Strays are entries of the episodes directory that never ship as they are, the first of
	// StraysTotal.
	Strays      []*source.StrayError `json:"strays"`
	StraysTotal int                  `json:"strays_total"`
}

// addFinished adds the time at which an episode was finished.
func (p *Progress) addFinished(at time.Time) {
	if at.After(p.LastFinished) {
		p.LastFinished = outbox.WholeSecond(at)
	}
}

// addUnfinished adds a directory without a marker.
func (p *Progress) addUnfinished(src *source.Source, name string) {
	u, err := src.InspectUnfinished(name)
	if err != nil {
		return // it is gone
	}
	u.ChangedAt = outbox.WholeSecond(u.ChangedAt)
	p.Unfinished++
	if p.Oldest == nil || u.ChangedAt.Before(p.Oldest.ChangedAt) {
		p.Oldest = &u
	}
}

// addUnnamed adds the unfinished directories whose name is not valid for an episode, for example
// one that is being copied.
func (p *Progress) addUnnamed(src *source.Source) error {
	for name, err := range src.Names() {
		if err != nil {
			return err
		}
		if _, err := episode.ParseName(name); err != nil && src.NameError(name) == nil {
			p.addUnfinished(src, name)
		}
	}
	return nil
}
