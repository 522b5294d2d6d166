package receiver

import (
	"context"
	"log/slog"

	"cis490/internal/episode"
)

// maxNamed is how many findings of one kind a scrub logs for each host: one host must not
// hide what was found of the others.
const maxNamed = 10

// findingLog logs what a scrub of the live receiver finds.
type findingLog struct {
	log    *slog.Logger
	counts map[hostFinding]int
}

type hostFinding struct {
	host    episode.Name
	finding string
}

// add logs a finding, unless there were enough of this kind.
func (l *findingLog) add(f ScrubFinding) {
	if l.counts == nil {
		l.counts = make(map[hostFinding]int)
	}
	of := hostFinding{f.Host, f.Finding}
	if l.counts[of]++; l.counts[of] > maxNamed {
		return
	}
	log := l.log.With("host", f.Host)
	if f.Episode == "" {
		log.Error("could not list a host's archives", "err", f.Detail, "hint", unreadableHint)
		return
	}
	log = log.With("episode", f.Episode)
	switch {
	case f.Finding == "missing":
		log.Error("an archive that has a row is not in the store")
	case f.Finding == "expanding":
		log.Warn("archive expands unusually", "detail", f.Detail)
	case !f.logged:
		log.Error("could not read a stored archive", "err", f.Detail, "hint", unreadableHint)
	default:
		logBad(log, f.Finding, f.SetAside, f.Detail)
	}
}

// end logs how many findings were not logged.
func (l *findingLog) end() {
	for of, n := range l.counts {
		if n > maxNamed {
			l.log.Warn("more findings of this kind", "host", of.host, "finding", of.finding, "others", n-maxNamed,
				"hint", "'receiver scrub' names all of them")
		}
	}
}

// transient passes on what prove finds, and logs an archive that was read wrongly once.
func (l *findingLog) transient(prove func(context.Context, episode.Key, *pacer) (proof, error)) func(context.Context, episode.Key, *pacer) (proof, error) {
	return func(ctx context.Context, key episode.Key, pace *pacer) (proof, error) {
		found, err := prove(ctx, key, pace)
		if err == nil && found.bad == nil && found.once != nil {
			logTransient(l.log.With("host", key.Host, "episode", key.Name), found.once)
		}
		return found, err
	}
}

func logTransient(log *slog.Logger, err error) {
	log.Warn("a stored archive was read wrongly once, and right the second time", "err", err)
}

// logBad logs what is wrong with an archive that was read.
func logBad(log *slog.Logger, finding string, aside bool, detail any) {
	switch {
	case finding == "undecodable":
		log.Error("a stored archive is what its host has sent, and cannot be decoded: keep the episode on its host", "err", detail)
	case aside:
		log.Error("set aside a stored archive that is not what it was; 'shipper verify --heal' on its host sends it again", "err", detail)
	default:
		log.Error("the disk does not give one archive after the other: nothing more is set aside; look at the disk", "err", detail)
	}
}
