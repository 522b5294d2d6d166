package statuspage

import (
	"maps"
	"math"
	"slices"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/fleet"
	"cis490/internal/hosts"
)

// hostPage is the page of a host.
type hostPage struct {
	frame
	Name         text
	Mark         mark
	Note         text // why it is not served
	NoteCommand  text
	Problems     []problem
	Graph        graph
	Partial      moment
	Report       []fact
	Silent       bool // the report may be outdated
	Held         []heldReason
	Certificates []certificate
	Arrivals     []arrival
	NoArrival    text // shown if there are none
	Conflicts    conflicts
}

type heldReason struct {
	Reason text
	Count  int64
}

type certificate struct {
	Serial text
	Until  moment
	State  text
}

func newHostPage(s State, h hosts.Host) hostPage {
	name := clean(string(h.Name()))
	arrivals := s.Arrivals.Hosts[h.Name()]
	page := hostPage{
		frame: newFrame(s, name+" - CIS490 receiver", "../"), Name: name, Mark: hostMark(h),
		Problems: newProblems(h.Problems, string(h.Name())),
		Graph:    newGraph(arrivals.Days, s.Now, largeDay, largeHeight), Partial: momentOf(s.Arrivals.Since, s.Now),
		Report: contactFacts(h, s.Now), Certificates: newCertificates(h.Certificates, s.Now),
		Arrivals: newArrivals(arrivals.Recent, s.Now), Conflicts: newConflicts(s, string(h.Name()), "../"),
	}
	page.NoArrival = noArrival(s, arrivals.Days)
	page.Note, page.NoteCommand = whyNotServed(h, s.Now)
	if r := h.Report; r != nil {
		page.Report = append(page.Report, reportFacts(*r, s)...)
		page.Silent = r.Silent
		for _, reason := range slices.Sorted(maps.Keys(r.Held)) {
			if n := r.Held[reason]; n > 0 {
				page.Held = append(page.Held, heldReason{clean(reason), n})
			}
		}
	}
	return page
}

// whyNotServed returns why a host has no access, and the command that changes it.
func whyNotServed(h hosts.Host, now time.Time) (note, line text) {
	name := string(h.Name())
	when := text("")
	if h.DisabledSince != nil {
		when = " on " + momentOf(*h.DisabledSince, now).Text + " UTC"
	}
	switch h.State {
	case datadir.HostDisabled:
		return "It was disabled" + when + ". To serve it again:", commandLine("receiver hosts enable %s", name)
	case datadir.HostRemoved:
		return "It was removed" + when + ". To let it join again:", commandLine("receiver invite %s --again", name)
	case hosts.Revoked:
		return "Its certificates are revoked. To let it join again:", commandLine("receiver invite %s --again", name)
	case hosts.Invited:
		return "It has not joined yet. To see its invitation:", "receiver invite --list"
	}
	return "", ""
}

// contactFacts returns when a host last connected, and what else is known about it without a report.
func contactFacts(h hosts.Host, now time.Time) []fact {
	facts := []fact{{Name: "Last contact", Text: "never"}}
	if h.LastContact != nil {
		facts[0] = fact{Name: "Last contact", At: momentOf(*h.LastContact, now)}
	}
	if h.InvitedUntil != nil {
		facts = append(facts, fact{Name: "Invited until", At: momentOf(*h.InvitedUntil, now)})
	}
	if r := h.Rotation; r != nil {
		facts = append(facts, fact{Name: "Rotation of the CAs", Text: textf("trusts the new CA: %s; has a new certificate: %s", yesOrNo(r.TrustsNewCA), yesOrNo(r.HasNewCertificate))})
	}
	if h.Report == nil {
		facts = append(facts, fact{Name: "Last report", Text: "none"})
	}
	return facts
}

func yesOrNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// reportFacts returns what a host last reported.
func reportFacts(r hosts.Report, s State) []fact {
	now := s.Now
	facts := []fact{
		{Name: "Last report", At: momentOf(r.ReceivedAt, now)},
		{Name: "Interval", Text: describeInterval(r.Interval)},
		{Name: "Version", Text: clean(r.Version)},
		{Name: "Unfinished", Text: textf("%d", r.Unfinished), At: momentOf(r.OldestUnfinished, now), More: "when the one that is idle for longest last changed"},
		{Name: "Waiting", Text: textf("%d, %s packed", r.Waiting, formatSize(r.WaitingBytes)), At: momentOf(r.OldestWaiting, now), More: "when the oldest began to wait"},
		{Name: "Failing", Text: textf("%d", r.Failing), At: momentOf(r.FailingSince, now), More: "when the first began to fail"},
		{Name: "Held", Text: textf("%d", r.HeldTotal())},
		{Name: "Undelivered", Text: textf("%d", r.Undelivered)},
		{Name: "Delivered, still on the host", Text: textf("%d", r.Shipped)},
		{Name: "Last error", Text: clean(r.LastError), At: momentOf(r.LastErrorAt, now)},
		{Name: "Clock", Text: describeClock(r.ClockSkew)},
		{Name: "Certificate until", At: dateOf(r.CertificateEnds, now), More: "according to the report"},
	}
	for i, f := range facts {
		if f.At == (moment{}) {
			facts[i].More = "" // it explains the time
		}
	}
	if r.Version != s.Version {
		facts[2].More = textf("the receiver runs %s", s.Version)
	}
	if r.Stored != nil {
		facts = append(facts, fact{Name: "Stored here", Text: plural(*r.Stored, "archive", "archives"), At: momentOf(r.ChangedAt, now), More: "when the directory last changed"})
	}
	if r.CountedInPart {
		facts = append(facts, fact{Name: "Counted in part", Text: "there are too many episodes to count all"})
	}
	facts = append(facts, diskFacts(r)...)
	return slices.DeleteFunc(facts, func(f fact) bool { return f.Text == "" && f.At == moment{} })
}

// describeClock returns how far the clock of a host is from the receiver's.
func describeClock(skew float64) text {
	switch tenths := math.Round(math.Abs(skew) * 10); {
	case tenths == 0:
		return "correct"
	case skew < 0:
		return textf("%.1f s behind", tenths/10)
	default:
		return textf("%.1f s ahead", tenths/10)
	}
}

func describeInterval(seconds int64) text {
	if seconds == 0 {
		return "with each pass"
	}
	return textf("%d s", seconds)
}

// diskFacts returns what a host reported about its disk.
func diskFacts(r hosts.Report) []fact {
	if r.Disk.SizeBytes <= 0 {
		return nil
	}
	fullIn, severity := describeForecast(r.FullInHours)
	if r.Disk.FreeBytes < r.Disk.MinFree {
		severity = fleet.Critical
	}
	facts := []fact{{Name: "Disk", Mark: severityMark(severity), Text: diskSpace(r) + textf(", %s kept free", formatSize(r.Disk.MinFree)), More: fullIn}}
	if r.Disk.Inodes > 0 {
		facts = append(facts, fact{Name: "Inodes", Text: textf("%d free of %d", r.Disk.FreeInodes, r.Disk.Inodes)})
	}
	return facts
}

func newCertificates(list []hosts.Certificate, now time.Time) []certificate {
	all := make([]certificate, len(list))
	for i, c := range list {
		all[i] = certificate{clean(c.Serial), dateOf(c.NotAfter, now), clean(string(c.State))}
	}
	return all
}
