package statuspage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"

	"cis490/internal/activity"
	"cis490/internal/durable"
	"cis490/internal/fleet"
	"cis490/internal/hosts"
)

// maxRows is the maximum number of hosts on the overview: a longer page would be of no use.
const maxRows = 1000

// overview is the page of all hosts.
type overview struct {
	frame
	Verdict   mark
	Hosted    text   // how many hosts are active, and how many have problems
	Pending   text   // what they have not delivered
	Problems  []text // of the receiver
	Hosts     []hostRow
	MoreHosts int
	Graph     graph
	Partial   moment // when the counted arrivals begin; empty if all are counted
	Arrivals  []arrival
	NoHosts   text // shown if there are none
	NoArrival text // the same
	Conflicts conflicts
	Capacity  []fact
	Checks    []fact
	About     []fact
}

// hostRow is the summary of a host.
type hostRow struct {
	Name, URL text
	Mark      mark
	Problems  []text // the worst ones
	More      int    // the number of others

	Last          moment // the last arrival
	NoLast        text   // shown if that is not known
	Waiting, Held text   // empty if they are unknown
	Graph         graph
	Disk          text
	Full          text
	FullMark      mark
	Certificate   moment
}

// arrival is an archive that was stored.
type arrival struct {
	At        moment
	Host, URL text
	Episode   text
	Size      text
	Repaired  bool
}

// fact is a line about the receiver or a host.
type fact struct {
	Name text
	Mark mark // without a word if the fact is not judged
	Text text
	At   moment
	More text
}

func newOverview(s State) overview {
	page := overview{
		frame: newFrame(s, "CIS490 receiver", ""),
		Graph: newGraph(s.Arrivals.Total, s.Now, largeDay, largeHeight), Partial: momentOf(s.Arrivals.Since, s.Now),
		Arrivals: newArrivals(s.Arrivals.Recent, s.Now), Conflicts: newConflicts(s, "", ""),
		Capacity: capacityFacts(s), Checks: checkFacts(s), About: aboutFacts(s),
	}
	page.Hosted, page.Pending = summarize(s)
	page.NoArrival = noArrival(s, s.Arrivals.Total)
	if s.HostsErr != nil {
		page.NoHosts = notRead
	}
	worst := fleet.OK
	for _, h := range s.Hosts {
		page.Hosts = append(page.Hosts, newHostRow(s, h))
		if h.IsServed() {
			worst = max(worst, fleet.Worst(h.Problems))
		}
	}
	page.sortHosts()
	for _, p := range s.Receiver.Problems {
		page.Problems = append(page.Problems, clean(p))
	}
	for _, err := range []error{s.ReceiverErr, s.HostsErr, s.ArrivalsErr} {
		if err != nil {
			page.Problems = append(page.Problems, textf("some of the state could not be read: %v", err))
		}
	}
	if s.Refusal != nil {
		page.Problems = slices.Insert(page.Problems, 0, textf("no uploads are accepted: %v", s.Refusal))
	}
	if len(page.Problems) > 0 {
		worst = fleet.Critical
	}
	for _, f := range slices.Concat(page.Capacity, page.Checks, page.About) {
		for _, severity := range []fleet.Severity{fleet.Warning, fleet.Critical} {
			if f.Mark.Shape == text(severity.String()) {
				worst = max(worst, severity)
			}
		}
	}
	page.Verdict = severityMark(worst)
	if worst != fleet.OK {
		page.Title = text(worst.String()) + ": " + page.Title
	}
	return page
}

// sortHosts sorts the hosts, those with the worst problems first, and keeps at most maxRows.
func (p *overview) sortHosts() {
	order := []text{"critical", "warning", "ok", "off"}
	slices.SortStableFunc(p.Hosts, func(a, b hostRow) int { // they are already sorted by name
		return slices.Index(order, a.Mark.Shape) - slices.Index(order, b.Mark.Shape)
	})
	p.MoreHosts = len(p.Hosts) - maxRows
	if p.MoreHosts > 0 {
		p.Hosts = p.Hosts[:maxRows]
	}
}

// summarize counts the hosts, and what they have not delivered.
func summarize(s State) (hosted, pending text) {
	sum := hosts.Summarize(s.Hosts)
	hosted = plural(int64(sum.Active), "active host", "active hosts")
	if sum.Critical > 0 {
		hosted += textf(", %d critical", sum.Critical)
	}
	if sum.Warning > 0 {
		hosted += ", " + plural(int64(sum.Warning), "with a warning", "with warnings")
	}
	return hosted, plural(sum.Waiting, "episode", "episodes") + textf(" waiting and %d held on the hosts", sum.Held)
}

func newHostRow(s State, h hosts.Host) hostRow {
	row := hostRow{Name: clean(string(h.Name())), URL: hostURL("", string(h.Name())), Mark: hostMark(h), Certificate: certificateEnd(h, s.Now)}
	arrivals := s.Arrivals.Hosts[h.Name()]
	row.Graph = newGraph(arrivals.Days, s.Now, smallDay, smallHeight)
	row.Last, row.NoLast = lastArrival(s, h, arrivals)
	const maxProblems = 2
	for i, p := range h.Problems {
		if i == maxProblems {
			row.More = len(h.Problems) - maxProblems
			break
		}
		row.Problems = append(row.Problems, clean(p.Text))
	}
	if r := h.Report; r != nil {
		row.Disk = diskSpace(*r)
		fullIn, severity := describeForecast(r.FullInHours)
		row.Full, row.FullMark = fullIn, severityMark(severity)
		if !r.Silent {
			row.Waiting, row.Held = textf("%d", r.Waiting), textf("%d", r.HeldTotal())
		}
	}
	return row
}

func diskSpace(r hosts.Report) text {
	if r.Disk.SizeBytes <= 0 {
		return ""
	}
	return textf("%s free of %s", formatSize(r.Disk.FreeBytes), formatSize(r.Disk.SizeBytes))
}

// notRead replaces what is not known because of an error. The page also shows the error.
const notRead text = "could not be read"

// lastArrival returns when the last archive of a host arrived, or what is known instead.
func lastArrival(s State, h hosts.Host, a activity.HostSummary) (moment, text) {
	switch {
	case len(a.Recent) > 0:
		return momentOf(a.Recent[0].At, s.Now), ""
	case !h.Stored:
		return moment{}, "never"
	case s.ArrivalsErr != nil || !s.Arrivals.Since.IsZero() || activity.Sum(a.Days[:]).Archives > 0: // such as backfilled ones
		return moment{}, "unknown"
	}
	return moment{}, textf("more than %d days ago", activity.Days)
}

// noArrival says what an empty list of arrivals means.
func noArrival(s State, counts [activity.Days]activity.Count) text {
	switch {
	case s.ArrivalsErr != nil:
		return notRead
	case activity.Sum(counts[:]).Archives > 0:
		return "None to list: these archives were indexed by 'receiver index backfill'."
	}
	return textf("Nothing arrived in the last %d days.", activity.Days)
}

// certificateEnd returns when the last certificate of a host expires, or has expired.
func certificateEnd(h hosts.Host, now time.Time) moment {
	if last := h.LastCertificate(); last != nil {
		return dateOf(last.NotAfter, now)
	}
	return moment{}
}

// dateOf is [momentOf] with the date only in its text.
func dateOf(t, now time.Time) moment {
	m := momentOf(t, now)
	if m.ISO != "" {
		m.Text = m.Text[:len(time.DateOnly)]
	}
	return m
}

func newArrivals(list []activity.Arrival, now time.Time) []arrival {
	all := make([]arrival, len(list))
	for i, a := range list {
		host := string(a.Key.Host)
		all[i] = arrival{momentOf(a.At, now), clean(host), hostURL("", host), clean(string(a.Key.Name)), formatSize(a.Size), a.Repaired}
	}
	return all
}

// capacityFacts returns the free space of the receiver's disk, and how long it lasts.
func capacityFacts(s State) []fact {
	if s.ReceiverErr != nil {
		return []fact{{Name: "Free space", Text: notRead}}
	}
	st := s.Receiver
	space := fact{Name: "Free space", Mark: severityMark(fleet.OK), Text: textf("%s free, %s kept free", formatSize(st.FreeBytes), formatSize(st.MinFree))}
	if st.FreeBytes != durable.UnknownSpace && st.FreeBytes < st.MinFree {
		space.Mark = severityMark(fleet.Critical)
	}
	fullIn, severity := describeForecast(st.FullInHours)
	full := fact{Name: "Forecast", Mark: severityMark(severity), Text: fullIn, More: "at the rate of the last day or week"}
	if fullIn == "" {
		full.Text, full.More = "not filling", "or not enough data yet: free space is recorded once per hour"
	}
	total := activity.Sum(s.Arrivals.Total[:])
	arrived := fact{Name: "Arrived", Text: describeCount(total), More: textf("in %d days", activity.Days)}
	if s.ArrivalsErr != nil {
		arrived = fact{Name: "Arrived", Text: notRead}
	}
	facts := []fact{space, full, arrived}
	if st.FreeInodes != nil {
		inodes := fact{Name: "Free inodes", Mark: severityMark(fleet.OK), Text: textf("%d free, %d kept free", *st.FreeInodes, st.MinFreeInodes)}
		if *st.FreeInodes < st.MinFreeInodes {
			inodes.Mark = severityMark(fleet.Critical)
		}
		facts = append(facts, inodes)
	}
	return append(facts, bucketFacts(s)...)
}

// checkFacts returns what the scrub has found, and what is in quarantine.
func checkFacts(s State) []fact {
	if s.ReceiverErr != nil {
		return []fact{{Name: "Scrub", Text: notRead}, {Name: "Quarantine", Text: notRead}}
	}
	if s.Bucket != nil && s.Bucket.Scrub == nil {
		return []fact{{Name: "Scrub", Text: notRead}, asideFact(s)}
	}
	p := s.Receiver.Scrub
	read := textf("%d %s, %s read", p.Objects, english.PluralWord(int(p.Objects), "archive", ""), formatSize(max(p.Bytes, 0)))
	scrub := fact{Name: "Scrub", Mark: severityMark(fleet.OK), Text: "not started"}
	switch {
	case s.Receiver.ScrubRate == 0:
		scrub = fact{Name: "Scrub", Mark: mark{"off", "off"}, Text: "scrub.rate is 0"}
	case !p.Ended.IsZero():
		scrub.Text, scrub.At, scrub.More = "ended", momentOf(p.Ended, s.Now), read
	case !p.Started.IsZero():
		scrub.Text, scrub.At, scrub.More = "in progress since", momentOf(p.Started, s.Now), read
		if p.Host != "" {
			scrub.More += textf(", last %s/%s", p.Host, p.Episode)
		}
	}
	verified := fact{Name: "All verified", Text: "not yet"}
	if !p.WholeSince.IsZero() {
		verified.Text, verified.At = "since", momentOf(p.WholeSince, s.Now)
	}
	found := fact{Name: "Found", Mark: severityMark(fleet.OK), Text: textf("%d corrupt, %d missing, %d unreadable, %d undecodable", p.Damaged, p.Missing, p.Unreadable, p.Undecodable)}
	switch {
	case p.Damaged+p.Missing > 0:
		found.Mark = severityMark(fleet.Critical)
	case p.Unreadable+p.Undecodable > 0:
		found.Mark = severityMark(fleet.Warning)
	}
	switch {
	case p.Damaged+p.Missing > 0:
		found.More = `"An archive is corrupt" in docs/operations.md`
	case p.Unreadable+p.Undecodable > 0:
		found.More = `"An archive that cannot be decoded" in docs/operations.md`
	}
	facts := []fact{scrub, verified, found, asideFact(s)}
	for _, part := range []struct {
		n    int64
		what string
	}{
		{p.HostsUnreadable, "hosts have a directory that cannot be listed"},
		{p.HostsUnfinished, "hosts sent archives faster than they could be listed"},
		{p.NotOpened, "archives could not be opened"},
	} {
		if part.n > 0 {
			facts = append(facts, fact{Name: "Not read", Mark: severityMark(fleet.Warning), Text: textf("%d %s", part.n, part.what)})
		}
	}
	if t := s.Receiver.TornTails; t.Count > 0 {
		facts = append(facts, fact{Name: "Index", Mark: severityMark(fleet.OK), Text: plural(int64(t.Count), "torn tail was cut off and saved", "torn tails were cut off and saved"), More: textf("the last one as %s", t.Last)})
	}
	return facts
}

// asideFact returns what is in quarantine.
func asideFact(s State) fact {
	one, many := "file", "files"
	if s.Bucket != nil {
		one, many = "archive", "archives"
		if s.Bucket.Quarantined == nil {
			return fact{Name: "Quarantine", Text: notRead}
		}
	}
	quarantine := fact{Name: "Quarantine", Mark: severityMark(fleet.OK), Text: plural(int64(s.Receiver.Quarantined), one, many)}
	if s.Receiver.Quarantined > 0 {
		quarantine.Mark = severityMark(fleet.Warning)
		quarantine.More = `"An archive is corrupt" in docs/operations.md`
	}
	return quarantine
}

// The receiver's certificate is a problem from these times before its expiry on, as in the alerts.
const (
	endsSoon     = 30 * 24 * time.Hour
	endsVerySoon = 7 * 24 * time.Hour
)

// certificateMark judges the certificate of the receiver, without which no host can send anything.
func certificateMark(s State) mark {
	switch left := s.CertEnds.Sub(s.Now); {
	case s.CertEnds.IsZero():
		return mark{}
	case left < endsVerySoon:
		return severityMark(fleet.Critical)
	case left < endsSoon:
		return severityMark(fleet.Warning)
	}
	return severityMark(fleet.OK)
}

// aboutFacts identifies the receiver.
func aboutFacts(s State) []fact {
	st := s.Receiver
	facts := []fact{
		{Name: "Version", Text: clean(s.Version)},
		{Name: "Process", Text: clean(st.Running)},
		{Name: "Certificate until", Mark: certificateMark(s), At: dateOf(s.CertEnds, s.Now)},
		{Name: "Data directory", Text: clean(st.DataDir)},
		{Name: "Disk", Text: clean(st.Disk)},
	}
	if b := s.Bucket; b != nil {
		facts = append(facts, fact{Name: "Bucket", Text: textf("%s %s at %s", b.Bucket, b.Prefix, strings.Join(b.Endpoints, " "))})
		probe := fact{Name: "Probe", Text: "unknown"}
		if b.ProbedAt != nil {
			probe = fact{Name: "Probe", Text: "passed", At: momentOf(*b.ProbedAt, s.Now), More: clean(strings.Join(b.Servers, " "))}
		}
		facts = append(facts, probe)
	}
	if st.Store != nil {
		facts = append(facts, fact{Name: "Store", Text: clean(fmt.Sprint(st.Store.ID))})
	}
	if st.DisabledHosts != nil && *st.DisabledHosts > 0 {
		facts = append(facts, fact{Name: "Disabled hosts", Text: textf("%d", *st.DisabledHosts)})
	}
	return slices.DeleteFunc(facts, func(f fact) bool { return f.Text == "" && f.At == moment{} })
}
