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
	Silent       bool // what it reported may not be so any more
	Held         []heldReason
	Certificates []certificate
	Arrivals     []arrival
	NoArrival    text // what to say if there are none
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
		Report: contacts(h, s.Now), Certificates: newCertificates(h.Certificates, s.Now),
		Arrivals: newArrivals(arrivals.Recent, s.Now), Conflicts: newConflicts(s, string(h.Name()), "../"),
	}
	page.NoArrival = noArrival(s, arrivals.Days)
	page.Note, page.NoteCommand = whyNotServed(h, s.Now)
	if r := h.Report; r != nil {
		page.Report = append(page.Report, reported(*r, s)...)
		page.Silent = r.Silent
		for _, reason := range slices.Sorted(maps.Keys(r.Held)) {
			if n := r.Held[reason]; n > 0 {
				page.Held = append(page.Held, heldReason{clean(reason), n})
			}
		}
	}
	return page
}

// whyNotServed says what the state of a host means, if it has no access.
func whyNotServed(h hosts.Host, now time.Time) (note, line text) {
	name := string(h.Name())
	since := text("")
	if h.DisabledSince != nil {
		since = " since " + momentOf(*h.DisabledSince, now).Text + " UTC"
	}
	switch h.State {
	case datadir.HostDisabled:
		return "It is refused" + since + ". To serve it again:", command("receiver hosts enable %s", name)
	case datadir.HostRemoved:
		return "It was removed" + since + ". To let it join again:", command("receiver invite %s --again", name)
	case hosts.Revoked:
		return "Its certificates are revoked. To let it join again:", command("receiver invite %s --again", name)
	case hosts.Invited:
		return "It has not joined yet. To see its invitation:", "receiver invite --list"
	}
	return "", ""
}

// contacts says when a host was last here.
func contacts(h hosts.Host, now time.Time) []fact {
	facts := []fact{{Name: "Last contact", Text: "never"}}
	if h.LastContact != nil {
		facts[0] = fact{Name: "Last contact", At: momentOf(*h.LastContact, now)}
	}
	if h.InvitedUntil != nil {
		facts = append(facts, fact{Name: "Invited until", At: momentOf(*h.InvitedUntil, now)})
	}
	if r := h.Rotation; r != nil {
		facts = append(facts, fact{Name: "Rotation of the CAs", Text: sayf("trusts the new CA: %s; has a new certificate: %s", yes(r.TrustsNewCA), yes(r.HasNewCertificate))})
	}
	if h.Report == nil {
		facts = append(facts, fact{Name: "Last report", Text: "none"})
	}
	return facts
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// reported returns what a host reported last.
func reported(r hosts.Report, s State) []fact {
	now := s.Now
	facts := []fact{
		{Name: "Last report", At: momentOf(r.ReceivedAt, now)},
		{Name: "Interval", Text: interval(r.Interval)},
		{Name: "Version", Text: clean(r.Version)},
		{Name: "Unfinished", Text: sayf("%d", r.Unfinished), At: momentOf(r.OldestUnfinished, now), More: "when the one idle for longest last changed"},
		{Name: "Waiting", Text: sayf("%d, %s packed", r.Waiting, size(r.WaitingBytes)), At: momentOf(r.OldestWaiting, now), More: "since when the oldest waits"},
		{Name: "Failing", Text: sayf("%d", r.Failing), At: momentOf(r.FailingSince, now), More: "since when"},
		{Name: "Held", Text: sayf("%d", r.HeldTotal())},
		{Name: "Undelivered", Text: sayf("%d", r.Undelivered)},
		{Name: "Delivered, still there", Text: sayf("%d", r.Shipped)},
		{Name: "Last error", Text: clean(r.LastError), At: momentOf(r.LastErrorAt, now)},
		{Name: "Clock", Text: clock(r.ClockSkew)},
		{Name: "Certificate until", At: dateOf(r.CertificateEnds, now), More: "by the report"},
	}
	for i, f := range facts {
		if f.At == (moment{}) {
			facts[i].More = "" // it explains the time
		}
	}
	if r.Version != s.Version {
		facts[2].More = sayf("the receiver has %s", s.Version)
	}
	if r.Stored != nil {
		facts = append(facts, fact{Name: "Stored here", Text: plural(*r.Stored, "archive", "archives"), At: momentOf(r.ChangedAt, now), More: "when the directory last changed"})
	}
	if r.CountedInPart {
		facts = append(facts, fact{Name: "Counted in part", Text: "there are too many episodes to count all"})
	}
	facts = append(facts, disk(r)...)
	return slices.DeleteFunc(facts, func(f fact) bool { return f.Text == "" && f.At == moment{} })
}

// clock says how far the clock of a host is from the receiver's.
func clock(skew float64) text {
	switch tenths := math.Round(math.Abs(skew) * 10); {
	case tenths == 0:
		return "right"
	case skew < 0:
		return sayf("%.1f s behind", tenths/10)
	default:
		return sayf("%.1f s ahead", tenths/10)
	}
}

func interval(seconds int64) text {
	if seconds == 0 {
		return "with each pass"
	}
	return sayf("%d s", seconds)
}

// disk returns what a host reported of its disk.
func disk(r hosts.Report) []fact {
	if r.Disk.SizeBytes <= 0 {
		return nil
	}
	said, severity := forecast(r.FullInHours)
	if r.Disk.FreeBytes < r.Disk.MinFree {
		severity = fleet.Critical
	}
	facts := []fact{{Name: "Disk", Mark: severityMark(severity), Text: diskSpace(r) + sayf(", %s kept free", size(r.Disk.MinFree)), More: said}}
	if r.Disk.Inodes > 0 {
		facts = append(facts, fact{Name: "Inodes", Text: sayf("%d free of %d", r.Disk.FreeInodes, r.Disk.Inodes)})
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
