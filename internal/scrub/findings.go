package scrub

import (
	"errors"
	"log/slog"

	"cis490/internal/episode"
	"cis490/internal/store"
)

// maxLoggedFindings is how many findings of one kind a pass logs per host: one host must
// not hide the findings of the others.
const maxLoggedFindings = 10

// FindingLog logs the findings of a pass beside a live receiver.
type FindingLog struct {
	log    *slog.Logger
	hint   string
	counts map[hostFinding]int
}

// NewFindingLog returns a log of findings. hint says what to do about what could not be read.
func NewFindingLog(log *slog.Logger, hint string) *FindingLog {
	return &FindingLog{log: log, hint: hint, counts: make(map[hostFinding]int)}
}

type hostFinding struct {
	host    episode.Name
	finding string
}

// LogFinding logs a finding, unless enough of this kind were logged.
func (l *FindingLog) LogFinding(f Finding) {
	id := hostFinding{f.Host, f.Finding}
	l.counts[id]++
	if l.counts[id] > maxLoggedFindings {
		return
	}
	log := l.log.With("host", f.Host)
	if f.Episode == "" {
		log.Error("cannot list stored archives", "err", f.Detail, "hint", l.hint)
		return
	}
	log = log.With("episode", f.Episode)
	switch {
	case f.Finding == "missing":
		log.Error("archive of a row is missing")
	case f.Finding == "expanding":
		log.Warn("archive expands unusually", "detail", f.Detail)
	// On a disk, the hint is about permissions. An object store that returns no bytes has the hint of its own.
	case !f.verified, f.Finding == "unreadable" && l.hint != UnreadableHint:
		log.Error("cannot read stored archive", "err", f.Detail, "hint", l.hint)
	default:
		logFailure(log, f.Finding == "undecodable", f.Quarantined, f.Detail)
	}
}

// LogSuppressed logs how many findings were not logged.
func (l *FindingLog) LogSuppressed() {
	for id, n := range l.counts {
		if n > maxLoggedFindings {
			l.log.Warn("more findings of this kind", "host", id.host, "finding", id.finding, "others", n-maxLoggedFindings,
				"hint", "'receiver scrub' names all of them")
		}
	}
}

// LogTo logs what the verification found. log must have the attributes host and episode.
func (r Result) LogTo(log *slog.Logger) {
	switch {
	case r.Err != nil:
		logFailure(log, errors.Is(r.Err, store.ErrUndecodable), r.Quarantined, r.Err)
	case r.Transient != nil:
		log.Warn("archive failed verification once", "err", r.Transient, "hint", "the second reading succeeded")
	}
}

func logFailure(log *slog.Logger, undecodable, quarantined bool, detail any) {
	switch {
	case undecodable:
		log.Error("stored archive cannot be decoded", "err", detail, "hint", "its host sent these bytes: keep the episode on its host")
	case quarantined:
		log.Error("quarantined corrupt archive", "err", detail, "hint", "'shipper verify --heal' on its host sends it again")
	default:
		log.Error("repeated read errors, stopped quarantining", "err", detail, "hint", "check the disk ('dmesg', 'smartctl -a')")
	}
}
