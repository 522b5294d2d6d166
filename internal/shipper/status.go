package shipper

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

// Status is what the folders say at one moment.
type Status struct {
	Host    episode.Name `json:"host_id"`
	Running string       `json:"running"` // who has the state directory; empty if nobody, or if that is unknown
	// RunningUnknown says that the user who asks may not look at the lock.
	RunningUnknown bool `json:"running_unknown,omitempty"`

	Waiting int `json:"waiting"` // finished, not packed yet
	Sealed  int `json:"sealed"`  // packed, not delivered yet
	// Settling are those of Waiting that were found to have changed too recently to be packed.
	Settling    int           `json:"settling"`
	SealedBytes int64         `json:"sealed_bytes"` // of what is packed, not delivered yet
	Held        []HeldEpisode `json:"held"`
	// HeldTotal counts Held and Unshippable: all that waits for a person.
	HeldTotal int `json:"held_total"`
	// Failing are episodes that wait, were tried in vain and will be tried again: those
	// first that have failed longest, of FailingTotal. FailingTotal counts what the last
	// shipper knew, without those that do not wait any more.
	Failing      []outbox.Failure `json:"failing"`
	FailingTotal int              `json:"failing_total"`
	// Receiver is nil while the receiver takes uploads, as far as the last shipper knew.
	Receiver *outbox.Outage `json:"receiver_down,omitempty"`
	// ReceiverState says whether the receiver takes what this host sends.
	ReceiverState ReceiverState `json:"receiver_state"`
	// AnsweredAt is when the receiver last took something, or said that it would, as far as
	// is known. Zero is not known.
	AnsweredAt time.Time `json:"receiver_answered_at,omitzero"`
	// ReportedAt is when a shipper wrote down what the folders do not say: Failing, Receiver
	// and AnsweredAt. It is zero if there was nothing to say.
	ReportedAt  time.Time `json:"reported_at,omitzero"`
	ReportedBy  int       `json:"reported_by_pid,omitempty"`
	Unshippable []string  `json:"unshippable"` // entries that cannot even be held
	Progress
	Shipped   int     `json:"shipped"`   // in the shipped folder
	Changed   Changes `json:"changed"`   // of those
	Discarded int     `json:"discarded"` // deletions that have begun and not ended
	// Store is the receiver's store that is adopted; nil if none is.
	Store *outbox.Store `json:"store,omitempty"`
	// StoreProblem is why it is not known which one is, and what to do. A shipper does not start.
	StoreProblem string `json:"store_problem,omitempty"`

	FreeBytes int64 `json:"free_bytes"`
	MinFree   int64 `json:"min_free"`
}

// Changes are the notes at retired episodes that they are no longer what was shipped. An
// episode is compared, and noted, by a verify and before it is deleted.
type Changes struct {
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest_noted_at,omitzero"`
	Newest time.Time `json:"newest_noted_at,omitzero"`
}

func (c *Changes) add(at time.Time) {
	if c.Count++; c.Count == 1 || at.Before(c.Oldest) {
		c.Oldest = at
	}
	if at.After(c.Newest) {
		c.Newest = at
	}
}

// HeldEpisode is an episode that waits for a person.
type HeldEpisode struct {
	Episode episode.Name `json:"episode_id"`
	outbox.Hold
}

// Inspect reads the folders of c. It writes nothing, and works beside a running
// shipper.
func Inspect(c Config) (Status, error) {
	dirs, err := hostdir.Open(c.Dirs())
	if err != nil {
		return Status{}, err
	}
	s := &Shipper{cfg: c, dirs: dirs, src: dirs.Source, out: dirs.Outbox}
	defer s.Close()
	st := Status{
		Host: c.HostID, MinFree: int64(c.MinFree),
		Held: []HeldEpisode{}, Failing: []outbox.Failure{}, Unshippable: []string{},
	}
	st.Strays = []*source.StrayError{}
	holder, state, err := s.out.Holder()
	if err != nil {
		return st, err
	}
	st.RunningUnknown = state == durable.LockUnknown
	if state == durable.LockHeld {
		st.Running = cmp.Or(holder, "another process")
	}
	if st.FreeBytes, err = s.out.Dir().Space(); err != nil {
		return st, err
	}
	if store, err := s.out.Store(); err != nil {
		st.StoreProblem = printableCause(err.Error())
	} else if store.ID != "" {
		st.Store = &store
	}
	if err := countShipped(s.src, &st); err != nil {
		return st, err
	}
	if st.Discarded, err = s.out.CountDiscarded(); err != nil {
		return st, err
	}
	reported, err := s.out.Report()
	if err != nil {
		reported = outbox.Report{} // there is none, or it says nothing
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

// A ReceiverState says what a running shipper knows of the receiver.
type ReceiverState string

// The states. A shipper that runs asks every few minutes.
const (
	ReceiverAnswers ReceiverState = "answers"
	ReceiverDown    ReceiverState = "down"    // it takes nothing, or cannot be reached
	ReceiverAsked   ReceiverState = "asking"  // no answer yet since the start
	ReceiverUnknown ReceiverState = "unknown" // no shipper runs, or it notes nothing
)

// How old a report may be to be the present. A shipper writes one each time that it has
// asked, and with each scan.
const (
	maxReportAge         = 10 * time.Minute
	maxReportAgeUnlocked = time.Minute // where it is not known whether a shipper runs
)

// receiverState returns what is known now.
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

// addReport takes in what a shipper wrote down, without what has got on since.
func (st *Status) addReport(r outbox.Report, waits map[episode.Name]bool) {
	if r.Empty() {
		return
	}
	st.ReportedAt, st.ReportedBy, st.Receiver = r.WrittenAt, r.PID, r.Receiver
	st.AnsweredAt = r.AnsweredAt
	if st.Receiver != nil {
		st.Receiver.Cause, st.Receiver.Hint = printableCause(st.Receiver.Cause), printableCause(st.Receiver.Hint)
	}
	st.FailingTotal = r.FailingTotal
	for _, f := range r.Failing {
		if !waits[f.Episode] {
			st.FailingTotal--
			continue
		}
		f.Cause = printableCause(f.Cause)
		st.Failing = append(st.Failing, f)
	}
	// Of those that the report does not name, some may have got on since.
	st.FailingTotal = min(st.FailingTotal, st.Waiting+st.Sealed)
}

// scanStatus takes in what the folders say, and notes in waits, by name, what waits.
func (s *Shipper) scanStatus(st *Status, waits map[episode.Name]bool) error {
	bad := func(err error) {
		if stray, ok := errors.AsType[*source.StrayError](err); ok {
			st.addStray(stray)
			return
		}
		st.Unshippable = append(st.Unshippable, err.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), settlingCheckTimeout)
	defer cancel()
	for sheet := (scanPage{}); !sheet.last; {
		var err error
		if sheet, err = s.scan(sheet.cursor, bad); err != nil {
			return err
		}
		for _, c := range sheet.candidates {
			if _, asked := waits[c.name]; asked {
				waits[c.name] = c.stage == Pack || c.stage == Send
			}
			if c.stage == Nothing {
				st.addUnfinished(s.src, string(c.name))
			} else {
				st.addFinished(s.src.MarkedAt(c.name))
			}
			switch c.stage {
			case Pack:
				st.Waiting++
				if s.isSettling(ctx, c) {
					st.Settling++
				}
			case Send:
				st.Sealed++
				st.SealedBytes += c.size
			case Held:
				hold, err := s.out.Held(c.name)
				if err != nil {
					continue // released meanwhile
				}
				st.Held = append(st.Held, HeldEpisode{c.name, hold})
			}
		}
	}
	return nil
}

// settlingCheckTimeout bounds how long a status looks for episodes that settle: there may be a
// large backlog, of large ones.
const settlingCheckTimeout = time.Second

// isSettling reports whether an episode is known to have changed too recently to be packed.
func (s *Shipper) isSettling(ctx context.Context, c candidate) bool {
	if _, settles := settling.Earliest(s.cfg.Settle.Std(), c.changedAt, time.Now()); settles {
		return true
	}
	if s.cfg.Settle == 0 || ctx.Err() != nil {
		return false
	}
	tree, err := s.src.Tree(c.name)
	if err != nil {
		return false // packing it says what is wrong
	}
	defer tree.Close()
	_, err = s.survey(ctx, tree, c)
	_, settles := errors.AsType[*settling.UnsettledError](err)
	return settles
}

func countShipped(src *source.Source, st *Status) error {
	for r, err := range src.Shipped() {
		if err != nil {
			return err
		}
		st.Shipped++
		st.addFinished(r.MarkedAt)
		if r.Change != nil {
			st.Changed.add(r.Change.At)
		}
	}
	return nil
}
