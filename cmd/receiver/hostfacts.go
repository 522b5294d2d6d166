package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
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
	"cis490/internal/receiver"
	"cis490/internal/revocation"
	"cis490/internal/wire"
)

// States of a host that only the identity directory knows.
const (
	hostInvited datadir.HostState = "invited" // it has no certificate yet
	hostExpired datadir.HostState = "expired" // all its certificates on record have expired
	hostRevoked datadir.HostState = "revoked" // and at least one of them was revoked, replaced or retired
)

// hostFacts is what the receiver knows of a host.
type hostFacts struct {
	datadir.Host
	Certificates []certificateFacts `json:"certificates,omitempty"` // the last to expire first
	LastContact  *time.Time         `json:"last_contact,omitempty"`
	InvitedUntil *time.Time         `json:"invited_until,omitempty"`
	Rotation     *hostRotation      `json:"rotation,omitempty"` // while the CAs are rotated
	Report       *hostReport        `json:"report,omitempty"`   // the last one
	Problems     []fleet.Problem    `json:"problems,omitempty"` // the severe ones first

	joined *time.Time    // when it joined last
	record *fleet.Record // nil if it does not report
}

// certificateFacts describes a certificate that was issued or used here.
type certificateFacts struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	State    pki.State `json:"state"`

	notBefore time.Time // zero if not known
}

// hostReport is the last report of a host, and what follows from it.
type hostReport struct {
	wire.Report
	ReceivedAt time.Time `json:"received_at"`
	ClockSkew  float64   `json:"clock_skew_seconds"` // the host's clock minus this one
	// Stored is the number of archives here when the report came, and ChangedAt when their directory
	// had changed last. Stored is nil if they were not counted.
	Stored      *int64    `json:"stored_archives,omitempty"`
	ChangedAt   time.Time `json:"archives_changed_at,omitzero"`
	Undelivered int64     `json:"undelivered"` // finished there and not stored here, those held included
	// FullInHours is when the host's disk is full, at the rate of the last day or week. It is nil if
	// it does not fill.
	FullInHours *float64 `json:"full_in_hours,omitempty"`

	silent bool // what it says may not be so any more
}

// hostRotation is the progress of a host in a rotation of the CAs.
type hostRotation struct {
	TrustsNewCA       bool `json:"trusts_new_ca"`
	HasNewCertificate bool `json:"has_new_certificate"`
}

// stateReplaced says that a certificate ended when its host joined again.
const stateReplaced pki.State = "replaced"

// listHosts returns all hosts that the data directory, the certificates on record, the records of
// contacts or an invitation name, sorted by name. Its error is of those that cannot be read: the
// list has the others.
func listHosts(cfg receiver.Config, now time.Time) ([]hostFacts, error) {
	list, _, err := judgeHosts(cfg, now)
	return list, err
}

// judgeHosts is [listHosts] with the moment at which the hosts were judged.
func judgeHosts(cfg receiver.Config, now time.Time) ([]hostFacts, fleet.Moment, error) {
	known, err := datadir.ListHosts(string(cfg.DataDir))
	all := make(map[episode.Name]hostFacts)
	for _, h := range known {
		all[h.Host] = hostFacts{Host: h}
	}
	at, rerr := addReports(cfg, all, now)
	err = errors.Join(explainNoDataDir(err), addCertificates(cfg, all, now), addContacts(cfg, all, now), addInvitations(cfg, all, now), addRotation(cfg, all), rerr)
	list := make([]hostFacts, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name].withState().withProblems(at))
	}
	return list, at, err
}

func addCertificates(cfg receiver.Config, all map[episode.Name]hostFacts, now time.Time) error {
	list, err := revocation.ListIssued(filepath.Dir(string(cfg.TLS.ClientCAFile)), now, pki.RecordsIn(string(cfg.IdentityDir)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = nil // the certificates are those of another CA, or not for this user to see
	}
	for _, i := range list {
		h := all[i.Host]
		h.Host.Host = i.Host
		h.Certificates = append(h.Certificates, certificateFacts{i.Serial, i.NotAfter, i.State, i.NotBefore})
		all[i.Host] = h
	}
	return err
}

func addContacts(cfg receiver.Config, all map[episode.Name]hostFacts, now time.Time) error {
	records, err := hostrecord.List(string(cfg.IdentityDir))
	for name, r := range records {
		h := all[name]
		h.Host.Host, h.LastContact = name, r.LastContact
		if r.Joined != nil {
			h.joined = &r.Joined.NotBefore
		}
		onRecord := func(c certificateFacts) bool { return c.Serial == r.Serial }
		if r.NotAfter != nil && !slices.ContainsFunc(h.Certificates, onRecord) {
			state := pki.Valid
			if now.After(*r.NotAfter) {
				state = pki.Expired
			}
			h.Certificates = append(h.Certificates, certificateFacts{Serial: r.Serial, NotAfter: *r.NotAfter, State: state})
		}
		for i, c := range h.Certificates {
			if c.State == pki.Valid && r.HasReplaced(c.Serial, c.notBefore) {
				h.Certificates[i].State = stateReplaced
			}
		}
		all[name] = h
	}
	return err
}

// addRotation adds the progress of each host, if a rotation is in progress.
func addRotation(cfg receiver.Config, all map[episode.Name]hostFacts) error {
	rotation, err := hostrecord.ReadRotation(string(cfg.IdentityDir))
	if err != nil || rotation == nil {
		return err
	}
	records, err := hostrecord.List(string(cfg.IdentityDir))
	for name, h := range all {
		r := records[name]
		h.Rotation = &hostRotation{rotation.TrustsNewCA(r), rotation.HasNewCertificate(r)}
		all[name] = h
	}
	return err
}

// addReports adds what the hosts report, and returns the moment at which that is judged.
func addReports(cfg receiver.Config, all map[episode.Name]hostFacts, now time.Time) (fleet.Moment, error) {
	at := fleet.Moment{Now: now}
	data, err := durable.Open(string(cfg.DataDir))
	if err != nil {
		return at, nil // what lists the hosts says so
	}
	defer data.Close()
	if _, state, err := datadir.Holder(data); err == nil {
		at.ReceiverDown = state != durable.LockHeld && state != durable.LockUnknown
	}
	if kept, err := fleet.ReadReceiver(data); err == nil {
		at.ReceiverSince = kept.StartedAt
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

func (h *hostFacts) setReport(r fleet.Record, at fleet.Moment) {
	health := r.Assess(at)
	h.Report = &hostReport{
		Report: r.Report, ReceivedAt: r.ReceivedAt, ClockSkew: r.ClockSkew, Undelivered: health.Undelivered,
		silent: health.SilentFor > 0 || health.FromTheFuture,
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
func (h hostFacts) withProblems(at fleet.Moment) hostFacts {
	if h.LastContact != nil {
		at.LastContact = *h.LastContact
	}
	switch {
	case h.State != datadir.HostActive && h.State != hostExpired:
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

// Parts of the life of a certificate from which its end is a problem. Certificates renew themselves at
// half of it.
const (
	endsSoon     = 12 // a twelfth: 30 days of a year
	endsVerySoon = 52 // a week of a year
)

// certificateProblems returns what is wrong with the certificate that gives access for longest. Of one
// that was issued elsewhere, only its end is known.
func (h hostFacts) certificateProblems(now time.Time) []fleet.Problem {
	problem := func(s fleet.Severity, format string, args ...any) []fleet.Problem {
		return []fleet.Problem{{Kind: "certificate", Severity: s, Text: fmt.Sprintf(format, args...)}}
	}
	i := slices.IndexFunc(h.Certificates, certificateFacts.isValid)
	switch {
	case i >= 0:
		c := h.Certificates[i]
		life, left := c.NotAfter.Sub(c.notBefore), c.NotAfter.Sub(now)
		if c.notBefore.IsZero() || left > life/endsSoon {
			return nil
		}
		if left < life/endsVerySoon {
			return problem(fleet.Critical, "its certificate expires on %s", formatDate(c.NotAfter))
		}
		return problem(fleet.Warning, "its certificate expires on %s", formatDate(c.NotAfter))
	case h.State == hostExpired:
		return problem(fleet.Critical, "its certificate has expired: 'receiver invite %s --again', or remove the host", h.Host.Host)
	}
	return nil
}

func addInvitations(cfg receiver.Config, all map[episode.Name]hostFacts, now time.Time) error {
	list, err := invite.List(string(cfg.IdentityDir))
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

// withState sets the state of a host that is not disabled.
func (h hostFacts) withState() hostFacts {
	slices.SortFunc(h.Certificates, func(a, b certificateFacts) int {
		if c := b.NotAfter.Compare(a.NotAfter); c != 0 {
			return c
		}
		return strings.Compare(a.Serial, b.Serial)
	})
	switch {
	case h.State == datadir.HostDisabled || h.State == datadir.HostRemoved:
	case h.InvitedUntil != nil && len(h.Certificates) == 0 && !h.Stored:
		h.State = hostInvited
	case len(h.Certificates) > 0 && !slices.ContainsFunc(h.Certificates, certificateFacts.isValid):
		h.State = hostExpired
		if slices.ContainsFunc(h.Certificates, func(c certificateFacts) bool { return c.State != pki.Expired }) {
			h.State = hostRevoked
		}
	default:
		h.State = datadir.HostActive
	}
	return h
}

// reasonKnown returns how the receiver knows a host other than by an invitation, or "".
func (h hostFacts) reasonKnown() string {
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

// formatExpiry returns when the last certificate that gives access expires, or else the last one.
func (h hostFacts) formatExpiry() string {
	if len(h.Certificates) == 0 {
		return "-"
	}
	last := h.Certificates[0]
	if i := slices.IndexFunc(h.Certificates, certificateFacts.isValid); i >= 0 {
		last = h.Certificates[i]
	}
	return formatDate(last.NotAfter)
}

func (c certificateFacts) isValid() bool { return c.State == pki.Valid || c.State == pki.NotYetValid }

func (h hostFacts) formatContact() string {
	if h.LastContact == nil {
		return "-"
	}
	return h.LastContact.UTC().Format("2006-01-02 15:04")
}
