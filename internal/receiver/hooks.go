package receiver

import (
	"errors"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/notify"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

// notifyStored tells the hooks of an archive. Its row must be durable.
func (r *Receiver) notifyStored(row index.Row) {
	r.hooks.Notify(notify.Event{Type: notify.Stored, Time: row.ReceivedAt, Data: notify.Data{
		Host: row.Key.Host, Episode: row.Key.Name, SHA256: row.SHA256, Size: row.Size, Repaired: row.Repaired,
	}})
}

// notifyConflict tells the hooks of an upload that was refused because its name is taken, once per name:
// the host asks again and again.
func (r *Receiver) notifyConflict(key episode.Key, offered, stored digest.Digest) {
	if r.hooks == nil || !r.reportedConflicts.Add(key) {
		return
	}
	r.hooks.Notify(notify.Event{Type: notify.Conflict, Data: notify.Data{
		Host: key.Host, Episode: key.Name, SHA256: offered, Stored: stored,
	}})
}

// notifyFinding tells the hooks of a finding of the scrub that means lost or corrupt bytes. What only
// cannot be read or decoded may be in order.
func (r *Receiver) notifyFinding(f scrub.Finding) {
	if f.Episode != "" && (f.Quarantined || f.Finding == "damaged" || f.Finding == "missing") {
		r.notifyDamage(episode.Key{Host: f.Host, Name: f.Episode}, f.Finding, f.Quarantined)
	}
}

// findingOf names what is wrong with a copy that fails verification, as a scrub does.
func findingOf(err error) string {
	if errors.Is(err, store.ErrCorrupt) {
		return "damaged"
	}
	return "unreadable"
}

// notifyDamage tells the hooks of an archive that was moved to quarantine, or that the scrub has found. A
// lookup that finds a corrupt copy does not: the host looks again and again until it has sent another.
func (r *Receiver) notifyDamage(key episode.Key, finding string, quarantined bool) {
	r.hooks.Notify(notify.Event{Type: notify.Damage, Data: notify.Data{
		Host: key.Host, Episode: key.Name, Finding: finding, Removed: quarantined,
	}})
}
