package receiver

import (
	"time"

	"cis490/internal/activity"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/notify"
)

// events counts what happens to archives, remembers conflicts for the status page, and tells
// the hooks.
type events struct {
	counters  *counters
	conflicts activity.Conflicts
	hooks     *notify.Notifier // nil without hooks
	// reportedConflicts are the names whose conflict the hooks were told.
	reportedConflicts notify.Reported
}

func (e *events) NoteStored(row index.Row, took time.Duration) {
	e.counters.countStored(row, took)
	if refused, ok := e.conflicts.Resolve(row.Key); ok {
		e.reportedConflicts.Remove(refused)
	}
	e.notifyStored(row)
}

func (e *events) NoteRecovered(row index.Row) { e.notifyStored(row) }

func (e *events) notifyStored(row index.Row) {
	e.hooks.Notify(notify.Event{Type: notify.Stored, Time: row.ReceivedAt, Data: notify.Data{
		Host: row.Key.Host, Episode: row.Key.Name, SHA256: row.SHA256, Size: row.Size, Repaired: row.Repaired,
	}})
}

// NoteConflict tells the hooks once per name: the host asks again and again.
func (e *events) NoteConflict(key episode.Key, offered, stored digest.Digest) {
	e.conflicts.Add(key, time.Now())
	if e.hooks == nil || !e.reportedConflicts.Add(key) {
		return
	}
	e.hooks.Notify(notify.Event{Type: notify.Conflict, Data: notify.Data{
		Host: key.Host, Episode: key.Name, SHA256: offered, Stored: stored,
	}})
}

func (e *events) NoteDamage(key episode.Key, finding string, quarantined bool) {
	e.hooks.Notify(notify.Event{Type: notify.Damage, Data: notify.Data{
		Host: key.Host, Episode: key.Name, Finding: finding, Removed: quarantined,
	}})
}
