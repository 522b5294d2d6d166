package main

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/hostrecord"
	"cis490/internal/invite"
	"cis490/internal/pki"
	"cis490/internal/receiver"
	"cis490/internal/revocation"
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

	joined *time.Time // when it joined last
}

// certificateFacts describes a certificate that was issued or used here.
type certificateFacts struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	State    pki.State `json:"state"`

	notBefore time.Time // zero if not known
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
	known, err := datadir.ListHosts(string(cfg.DataDir))
	all := make(map[episode.Name]hostFacts)
	for _, h := range known {
		all[h.Host] = hostFacts{Host: h}
	}
	err = errors.Join(explainNoDataDir(err), addCertificates(cfg, all, now), addContacts(cfg, all, now), addInvitations(cfg, all, now), addRotation(cfg, all))
	list := make([]hostFacts, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name].withState())
	}
	return list, err
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
