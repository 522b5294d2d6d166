// Package hosts lists the hosts of a receiver: what is known about each from the store, certificates,
// contacts, invitations and reports, and what is wrong with it.
//
// It only reads files, so it works whether or not a receiver is running.
package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fleet"
	"cis490/internal/hostrecord"
	"cis490/internal/invite"
	"cis490/internal/pki"
	"cis490/internal/revocation"
	"cis490/internal/wire"
)

// States of a host that only the identity directory knows.
const (
	Invited datadir.HostState = "invited" // it has no certificate yet
	Expired datadir.HostState = "expired" // all its certificates on record have expired
	Revoked datadir.HostState = "revoked" // and at least one of them was revoked, replaced or retired
)

// Host is what the receiver knows about a host.
type Host struct {
	datadir.Host
	Certificates []Certificate   `json:"certificates,omitempty"` // the last to expire first
	LastContact  *time.Time      `json:"last_contact,omitempty"`
	InvitedUntil *time.Time      `json:"invited_until,omitempty"`
	Rotation     *Rotation       `json:"rotation,omitempty"` // while the CAs are rotated
	Report       *Report         `json:"report,omitempty"`   // the last one
	Problems     []fleet.Problem `json:"problems,omitempty"` // the severe ones first

	joined *time.Time    // when it joined last
	record *fleet.Record // nil if it does not report
}

// Certificate describes a certificate that was issued or used here.
type Certificate struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	State    pki.State `json:"state"`

	notBefore time.Time // zero if not known
}

// Report is the last report of a host, and conclusions from it.
type Report struct {
	wire.Report
	ReceivedAt time.Time `json:"received_at"`
	ClockSkew  float64   `json:"clock_skew_seconds"` // the host's clock minus this one
	// Stored is the number of archives here when the report came, and ChangedAt when their directory
	// had changed last. Stored is nil if they were not counted.
	Stored      *int64    `json:"stored_archives,omitempty"`
	ChangedAt   time.Time `json:"archives_changed_at,omitzero"`
	Undelivered int64     `json:"undelivered"` // finished on the host and not stored here, including those held
	// FullInHours is the time until the host's disk is full, at the rate of the last day or week. It
	// is nil if the disk does not fill.
	FullInHours *float64 `json:"full_in_hours,omitempty"`

	Silent bool `json:"-"` // the report may be outdated
}

// Rotation is the progress of a host in a rotation of the CAs.
type Rotation struct {
	TrustsNewCA       bool `json:"trusts_new_ca"`
	HasNewCertificate bool `json:"has_new_certificate"`
}

// replaced says that a certificate ended when its host joined again.
const replaced pki.State = "replaced"

// Sources are the directories that hosts are read from.
type Sources struct {
	DataDir     string
	CADir       string // of "receiver pki"
	IdentityDir string // empty: there is none
	Shared      bool   // other receivers hear the hosts too
	// Records keeps what was read of the certificates on record, for a caller that lists the hosts again and
	// again. It may be nil.
	Records *revocation.RecordCache
}

// List returns all hosts that are named in the data directory, in certificates on record, in records
// of contacts or in invitations, sorted by name. It also returns the moment at which they were
// judged. Its error is about hosts that cannot be read: the list has the others.
func List(src Sources, now time.Time) ([]Host, fleet.Moment, error) {
	known, err := datadir.ListHosts(src.DataDir)
	all := make(map[episode.Name]Host)
	for _, h := range known {
		all[h.Host] = Host{Host: h}
	}
	at, rerr := addReports(src, all, now)
	err = errors.Join(err, addCertificates(src, all, now), addContacts(src, all, now), addInvitations(src, all, now), addRotation(src, all), rerr)
	list := make([]Host, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name].withState().withProblems(at))
	}
	return list, at, err
}

func addCertificates(src Sources, all map[episode.Name]Host, now time.Time) error {
	list, err := src.Records.ListIssued(src.CADir, now, pki.RecordsIn(src.IdentityDir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = nil // the certificates are those of another CA, or not for this user to see
	}
	for _, i := range list {
		h := all[i.Host]
		h.Host.Host = i.Host
		h.Certificates = append(h.Certificates, Certificate{i.Serial, i.NotAfter, i.State, i.NotBefore})
		all[i.Host] = h
	}
	return err
}

func addContacts(src Sources, all map[episode.Name]Host, now time.Time) error {
	records, err := hostrecord.List(src.IdentityDir)
	for name, r := range records {
		h := all[name]
		h.Host.Host, h.LastContact = name, r.LastContact
		if r.Joined != nil {
			h.joined = &r.Joined.NotBefore
		}
		onRecord := func(c Certificate) bool { return c.Serial == r.Serial }
		if r.NotAfter != nil && !slices.ContainsFunc(h.Certificates, onRecord) {
			state := pki.Valid
			if now.After(*r.NotAfter) {
				state = pki.Expired
			}
			h.Certificates = append(h.Certificates, Certificate{Serial: r.Serial, NotAfter: *r.NotAfter, State: state})
		}
		for i, c := range h.Certificates {
			if c.State == pki.Valid && r.HasReplaced(c.Serial, c.notBefore) {
				h.Certificates[i].State = replaced
			}
		}
		all[name] = h
	}
	return err
}

// addRotation adds the progress of each host, if a rotation is in progress.
func addRotation(src Sources, all map[episode.Name]Host) error {
	rotation, err := hostrecord.ReadRotation(src.IdentityDir)
	if err != nil || rotation == nil {
		return err
	}
	records, err := hostrecord.List(src.IdentityDir)
	for name, h := range all {
		r := records[name]
		h.Rotation = &Rotation{rotation.TrustsNewCA(r), rotation.HasNewCertificate(r)}
		all[name] = h
	}
	return err
}

// addReports adds what the hosts report, and returns the moment at which that is judged.
func addReports(src Sources, all map[episode.Name]Host, now time.Time) (fleet.Moment, error) {
	at := fleet.Moment{Now: now, Shared: src.Shared}
	data, err := durable.Open(src.DataDir)
	if err != nil {
		return at, nil // datadir.ListHosts reports it
	}
	defer data.Close()
	if _, state, err := datadir.Holder(data); err == nil {
		at.ReceiverDown = state != durable.LockHeld && state != durable.LockUnknown
	}
	if kept, err := fleet.ReadReceiver(data); err == nil {
		at.ReceiverSince, at.SharedAt, at.SharedSince = kept.StartedAt, kept.SharedAt, kept.SharedSince
	}
	records, unreadable, err := fleet.Read(data)
	for name, r := range records {
		h := all[name]
		h.Host.Host, h.record = name, &r
		h.setReport(r, at)
		all[name] = h
	}
	for name, why := range unreadable {
		h := all[name]
		h.Host.Host = name
		h.Problems = append(h.Problems, fleet.Problem{Kind: "report", Severity: fleet.Warning, Text: "its report cannot be read: " + why.Error()})
		all[name] = h
	}
	return at, err
}

func (h *Host) setReport(r fleet.Record, at fleet.Moment) {
	health := r.Assess(at)
	h.Report = &Report{
		Report: r.Report, ReceivedAt: r.ReceivedAt, ClockSkew: r.ClockSkew, Undelivered: health.Undelivered,
		Silent: health.SilentFor > 0 || health.FromTheFuture,
	}
	if !r.CountedAt.IsZero() {
		h.Report.Stored, h.Report.ChangedAt = &r.Stored, r.LastChange
	}
	if health.FullIn > 0 {
		hours := fleet.InHours(health.FullIn)
		h.Report.FullInHours = &hours
	}
}

// withProblems adds the problems of a host that is served, or should be.
func (h Host) withProblems(at fleet.Moment) Host {
	if h.LastContact != nil {
		at.LastContact = *h.LastContact
	}
	switch {
	case h.State != datadir.HostActive && h.State != Expired:
		h.Problems = nil
		return h
	case h.record != nil:
		h.Problems = append(h.Problems, h.record.Problems(at)...)
	case h.LastContact != nil:
		h.Problems = append(h.Problems, fleet.ContactProblems(at)...)
	}
	h.Problems = append(h.Problems, h.certificateProblems(at.Now)...)
	slices.SortStableFunc(h.Problems, func(a, b fleet.Problem) int { return int(b.Severity - a.Severity) })
	if r := h.Report; r != nil && (h.LastContact == nil || h.LastContact.Before(r.ReceivedAt)) {
		h.LastContact = &r.ReceivedAt
	}
	return h
}

// A certificate is a problem once less than this part of its lifetime is left. Certificates renew
// themselves at half of it.
const (
	endsSoon     = 12 // a twelfth: 30 days of a year
	endsVerySoon = 52 // a week of a year
)

// certificateProblems returns what is wrong with the certificate that gives access for longest. If it
// was issued elsewhere, only its expiry is known.
func (h Host) certificateProblems(now time.Time) []fleet.Problem {
	problem := func(s fleet.Severity, format string, args ...any) []fleet.Problem {
		return []fleet.Problem{{Kind: "certificate", Severity: s, Text: fmt.Sprintf(format, args...)}}
	}
	c := h.BestCertificate()
	switch {
	case c != nil:
		life, left := c.NotAfter.Sub(c.notBefore), c.NotAfter.Sub(now)
		if c.notBefore.IsZero() || left > life/endsSoon {
			return nil
		}
		if left < life/endsVerySoon {
			return problem(fleet.Critical, "its certificate expires on %s", formatDate(c.NotAfter))
		}
		return problem(fleet.Warning, "its certificate expires on %s", formatDate(c.NotAfter))
	case h.State == Expired:
		return problem(fleet.Critical, "its certificate has expired: 'receiver invite %s --again', or remove the host", h.Name())
	}
	return nil
}

func addInvitations(src Sources, all map[episode.Name]Host, now time.Time) error {
	list, err := invite.List(src.IdentityDir)
	for _, i := range list {
		if i.State(now) != invite.Open {
			continue
		}
		h := all[i.Host]
		h.Host.Host, h.InvitedUntil = i.Host, &i.Expires
		all[i.Host] = h
	}
	return err
}

// Name returns the name of the host.
func (h Host) Name() episode.Name { return h.Host.Host }

// withState sets the state of a host that is not disabled.
func (h Host) withState() Host {
	slices.SortFunc(h.Certificates, func(a, b Certificate) int {
		if c := b.NotAfter.Compare(a.NotAfter); c != 0 {
			return c
		}
		return strings.Compare(a.Serial, b.Serial)
	})
	switch {
	case h.State == datadir.HostDisabled || h.State == datadir.HostRemoved:
	case h.InvitedUntil != nil && len(h.Certificates) == 0 && !h.Stored:
		h.State = Invited
	case len(h.Certificates) > 0 && !slices.ContainsFunc(h.Certificates, Certificate.IsValid):
		h.State = Expired
		if slices.ContainsFunc(h.Certificates, func(c Certificate) bool { return c.State != pki.Expired }) {
			h.State = Revoked
		}
	default:
		h.State = datadir.HostActive
	}
	return h
}

// KnownBy returns how the receiver knows a host other than by an invitation, or "".
func (h Host) KnownBy() string {
	switch {
	case h.State == datadir.HostRemoved:
		return "it was removed"
	case h.joined != nil:
		return "it joined on " + formatDate(*h.joined)
	case h.LastContact != nil:
		return "its last contact was on " + formatDate(*h.LastContact)
	case h.Stored:
		return "it has stored archives"
	case len(h.Certificates) > 0:
		return "a certificate was issued to it"
	}
	return ""
}

// LastCertificate returns the certificate that gives access for longest, or else the one that expired last.
// It is nil if there is none.
func (h Host) LastCertificate() *Certificate {
	if c := h.BestCertificate(); c != nil || len(h.Certificates) == 0 {
		return c
	}
	return &h.Certificates[0]
}

// HasProblem reports whether the host has a problem of a kind.
func (h Host) HasProblem(kind string) bool {
	return slices.ContainsFunc(h.Problems, func(p fleet.Problem) bool { return p.Kind == kind })
}

// BestCertificate returns the certificate that gives access for longest, or nil if none does.
func (h Host) BestCertificate() *Certificate {
	i := slices.IndexFunc(h.Certificates, Certificate.IsValid) // the last to expire is first
	if i < 0 {
		return nil
	}
	return &h.Certificates[i]
}

// WorstByKind returns the severity of each kind of problem that the host has.
func (h Host) WorstByKind() map[string]fleet.Severity {
	worst := make(map[string]fleet.Severity)
	for _, p := range h.Problems {
		worst[p.Kind] = max(worst[p.Kind], p.Severity)
	}
	return worst
}

// IsValid reports whether the certificate gives access, now or later.
func (c Certificate) IsValid() bool { return c.State == pki.Valid || c.State == pki.NotYetValid }

func formatDate(t time.Time) string { return t.UTC().Format(time.DateOnly) }
