package statuspage_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"

	"cis490/internal/activity"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fleet"
	"cis490/internal/hosts"
	"cis490/internal/s3backend"
	"cis490/internal/scrub"
	"cis490/internal/statuspage"
	"cis490/internal/wire"
)

var now = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

// sample is a receiver with hosts of each kind.
func sample() statuspage.State {
	hours, stored := 20.0, int64(7)
	key := func(host, name string) episode.Key {
		return episode.Key{Host: episode.Name(host), Name: episode.Name(name)}
	}
	report := func(held int64, age time.Duration) *hosts.Report {
		return &hosts.Report{
			Report: wire.Report{
				Version: "1.4", Interval: 300, Waiting: 3, WaitingBytes: 1 << 20, OldestWaiting: now.Add(-time.Hour),
				Held: map[string]int64{"conflict": held}, Disk: wire.DiskSpace{FreeBytes: 1 << 30, SizeBytes: 4 << 30}, LastError: "connection refused",
			},
			ReceivedAt: now.Add(-age), Stored: &stored, ChangedAt: now.Add(-20 * 24 * time.Hour), FullInHours: &hours,
		}
	}
	host := func(name string, state datadir.HostState, r *hosts.Report, problems ...fleet.Problem) hosts.Host {
		return hosts.Host{Host: datadir.Host{Host: episode.Name(name), State: state, Stored: true}, Report: r, Problems: problems}
	}
	s := statuspage.State{Now: now, Version: "1.4", CertEnds: now.AddDate(1, 0, 0), Receiver: diskbackend.Status{FreeBytes: 1 << 40, MinFree: 1 << 30, FullInHours: &hours}}
	s.Hosts = []hosts.Host{
		host("lab-01", datadir.HostActive, report(0, time.Minute)),
		host("lab-02", datadir.HostActive, report(2, time.Minute), fleet.Problem{Kind: "held", Severity: fleet.Warning, Text: "2 held (2 conflict): see 'shipper held' there"}),
		host("lab-03", datadir.HostActive, nil, fleet.Problem{Kind: "silent", Severity: fleet.Critical, Text: "has not reported for 3 h"}),
		host("lab-04", datadir.HostDisabled, nil),
	}
	var days activity.HostSummary
	days.Days[13], days.Days[11] = activity.Count{Archives: 4, Bytes: 400}, activity.Count{Archives: 1, Bytes: 100}
	days.Recent = []activity.Arrival{{Key: key("lab-01", "run-9"), At: now.Add(-time.Minute), Size: 2048, Repaired: true}}
	s.Arrivals = activity.Summary{Total: days.Days, Recent: days.Recent, Hosts: map[episode.Name]activity.HostSummary{"lab-01": days}}
	s.Conflicts = []activity.Conflict{
		{Key: key("lab-02", "run-7"), First: now.Add(-time.Hour), Last: now.Add(-time.Hour), Times: 2},
		{Key: key("lab-01", "solved"), First: now.Add(-time.Hour), Last: now.Add(-time.Hour), Times: 1}, // lab-01 has reported since, and holds none
	}
	return s
}

// getPage requests a page.
func getPage(t testing.TB, s statuspage.State, path string) (*httptest.ResponseRecorder, *html.Node) {
	t.Helper()
	w := httptest.NewRecorder()
	statuspage.New(func() statuspage.State { return s }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	tree, err := html.Parse(strings.NewReader(w.Body.String()))
	fixture.Must(t, err)
	return w, tree
}

// textOf returns the text of a page, with single spaces.
func textOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func mustShow(t *testing.T, page *html.Node, texts ...string) {
	t.Helper()
	shown := textOf(page)
	for _, text := range texts {
		if !strings.Contains(shown, text) {
			t.Errorf("%q is missing in\n%s", text, shown)
		}
	}
}

// TestOverviewShowsEachHost: its state in words, and those with the worst problems first.
func TestOverviewShowsEachHost(t *testing.T) {
	w, page := getPage(t, sample(), "/")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("status %d, %v", w.Code, w.Header())
	}
	mustShow(t, page,
		"3 active hosts, 1 critical, 1 with a warning ; 6 episodes waiting and 2 held on the hosts",
		"lab-03 \u25a0 critical has not reported for 3 h", "lab-02 \u25b2 warning 2 held", "lab-01 \u25cf ok 2026-11-30 07:59 60 s ago 3 0", "lab-04 \u25cb disabled",
		"lab-02 / run-7 refused 2 times, last 2026-11-30 07:00 60 min ago shipper held shipper retry --keep-both run-7",
		"5 archives, 500 B in 14 days", "lab-01 / run-9 2.0 KiB repaired", "full in about 20 h")
	if shown := textOf(page); strings.Contains(shown, "solved") || strings.Index(shown, "lab-03") > strings.Index(shown, "lab-01") {
		t.Errorf("it says\n%s", shown)
	}
	if !strings.Contains(w.Body.String(), `aria-label="Arrivals by day, today last: 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4"`) {
		t.Error("the graph of lab-01 does not say its numbers")
	}
}

func TestHostPageShowsWhatToDo(t *testing.T) {
	_, page := getPage(t, sample(), "/hosts/lab-03")
	mustShow(t, page, "has not reported for 3 h On the host, begin with: systemctl status cis490-shipper", "A host is silent")
	_, page = getPage(t, sample(), "/hosts/lab-02")
	mustShow(t, page, "conflict 2", "shipper retry --keep-both run-7", "connection refused", "1.0 GiB free of 4.0 GiB", "7 archives")
	_, page = getPage(t, sample(), "/hosts/lab-04")
	mustShow(t, page, "receiver hosts enable lab-04")
}

// TestProblemsOfTheReceiverAreFirst: an error of one directory does not hide the rest.
func TestProblemsOfTheReceiverAreFirst(t *testing.T) {
	s := sample()
	s.Refusal, s.HostsErr = errors.New("no space"), errors.New("open reports: permission denied")
	_, page := getPage(t, s, "/")
	mustShow(t, page, "critical: CIS490 receiver", "no uploads are accepted: no space some of the state could not be read: open reports: permission denied", "lab-01")
}

// TestWhatCouldNotBeReadIsNotShownAsGood: an unknown count must not be shown as zero.
func TestWhatCouldNotBeReadIsNotShownAsGood(t *testing.T) {
	s := sample()
	s.Receiver, s.ReceiverErr = diskbackend.Status{}, errors.New("lock: permission denied")
	s.Hosts, s.HostsErr = nil, errors.New("open reports: permission denied")
	s.Arrivals, s.ArrivalsErr = activity.Summary{}, errors.New("read index.jsonl: input/output error")
	_, page := getPage(t, s, "/")
	mustShow(t, page, "critical: CIS490 receiver", "Free space could not be read", "Scrub could not be read", "Quarantine could not be read")
	for _, never := range []string{"No host has joined", "Nothing arrived", "0 corrupt", "0 files", "0 B free"} {
		if strings.Contains(textOf(page), never) {
			t.Errorf("the page has %q", never)
		}
	}
}

// TestReceiversCertificateIsJudged: without it no host can send anything.
func TestReceiversCertificateIsJudged(t *testing.T) {
	s := sample()
	s.Hosts, s.Receiver.FullInHours = nil, nil
	for days, want := range map[int]string{6: "critical: CIS490 receiver", 29: "warning: CIS490 receiver", 31: ""} {
		s.CertEnds = s.Now.AddDate(0, 0, days)
		_, page := getPage(t, s, "/")
		mustShow(t, page, want)
		if shown := textOf(page); want == "" && !strings.HasPrefix(shown, "CIS490 receiver") {
			t.Errorf("%d days before its end: %.60s", days, shown)
		}
	}
}

// TestStorageOfTheReceiverIsJudged: what needs an operator is in the title, which a browser shows in its tab.
func TestStorageOfTheReceiverIsJudged(t *testing.T) {
	hours, inodes := func(h float64) *float64 { return &h }, int64(5)
	for what, c := range map[string]struct {
		change func(*diskbackend.Status)
		want   string
	}{
		"nothing":     {func(*diskbackend.Status) {}, ""},
		"full":        {func(st *diskbackend.Status) { st.FreeBytes = st.MinFree - 1 }, "critical"},
		"inodes":      {func(st *diskbackend.Status) { st.FreeInodes, st.MinFreeInodes = &inodes, 6 }, "critical"},
		"full soon":   {func(st *diskbackend.Status) { st.FullInHours = hours(fleet.FullVerySoon.Hours() - 1) }, "critical"},
		"full later":  {func(st *diskbackend.Status) { st.FullInHours = hours(fleet.FullSoon.Hours() - 1) }, "warning"},
		"corrupt":     {func(st *diskbackend.Status) { st.Scrub.Damaged = 1 }, "critical"},
		"missing":     {func(st *diskbackend.Status) { st.Scrub.Missing = 1 }, "critical"},
		"unreadable":  {func(st *diskbackend.Status) { st.Scrub.Unreadable = 1 }, "warning"},
		"undecodable": {func(st *diskbackend.Status) { st.Scrub.Undecodable = 1 }, "warning"},
		"quarantine":  {func(st *diskbackend.Status) { st.Quarantined = 1 }, "warning"},
		"not listed":  {func(st *diskbackend.Status) { st.Scrub.HostsUnreadable = 1 }, "warning"},
	} {
		s := sample()
		s.Hosts, s.Receiver.FullInHours, s.Receiver.ScrubRate = nil, nil, 1
		c.change(&s.Receiver)
		_, page := getPage(t, s, "/")
		title, _, _ := strings.Cut(textOf(page), "CIS490 receiver")
		if strings.Trim(title, ": ") != c.want {
			t.Errorf("%s: the title begins with %q, want %q", what, title, c.want)
		}
	}
}

// TestHostsThatAreNotServedAreNoProblem: an operator disabled them.
func TestHostsThatAreNotServedAreNoProblem(t *testing.T) {
	s := sample()
	s.Receiver.FullInHours = nil
	s.Hosts = s.Hosts[3:]
	s.Hosts[0].Problems = []fleet.Problem{{Kind: "silent", Severity: fleet.Critical, Text: "x"}}
	_, page := getPage(t, s, "/")
	if shown := textOf(page); strings.HasPrefix(shown, "critical") {
		t.Errorf("got %.60s", shown)
	}
}

// TestSilentHostsCountsAreUnknown: what it reported is not what waits there now.
func TestSilentHostsCountsAreUnknown(t *testing.T) {
	s := sample()
	s.Hosts = s.Hosts[1:2]
	s.Hosts[0].Report.Silent = true
	s.Conflicts = nil
	_, page := getPage(t, s, "/")
	mustShow(t, page, "unknown unknown", "0 episodes waiting and 0 held on the hosts", "No known conflicts.")
	_, page = getPage(t, s, "/hosts/lab-02")
	mustShow(t, page, "may be outdated")
}

// TestDiskOfAHostIsJudged: below its minimum it packs nothing.
func TestDiskOfAHostIsJudged(t *testing.T) {
	s := sample()
	s.Hosts[0].Report.FullInHours, s.Hosts[0].Report.Disk.MinFree = nil, 2<<30
	_, page := getPage(t, s, "/hosts/lab-01")
	mustShow(t, page, "Disk \u25a0 critical 1.0 GiB free of 4.0 GiB")
}

// TestLastArrivalIsUnknownIfTheIndexWasNotRead, or not all of it: it is not long ago.
func TestLastArrivalIsUnknownIfTheIndexWasNotRead(t *testing.T) {
	for want, change := range map[string]func(*statuspage.State){
		"more than 14 days ago": func(*statuspage.State) {},
		"unknown":               func(s *statuspage.State) { s.ArrivalsErr = errors.New("input/output error") },
		"unknown ":              func(s *statuspage.State) { s.Arrivals.Since = now.Add(-time.Hour) },
	} {
		s := sample()
		s.Hosts = s.Hosts[1:2]
		change(&s)
		_, page := getPage(t, s, "/")
		mustShow(t, page, "see 'shipper held' there "+want)
	}
}

// TestConflictStaysUntilAReportSolvesIt: an older report knows nothing of it. Those that only a report knows
// are counted.
func TestConflictStaysUntilAReportSolvesIt(t *testing.T) {
	s := sample()
	s.Conflicts[1].Last = now // lab-01 reported a minute ago
	_, page := getPage(t, s, "/")
	mustShow(t, page, "lab-01 / solved refused", "lab-02 reports 1 more held for a conflict") // of two, one is named
	_, page = getPage(t, s, "/hosts/lab-01")
	mustShow(t, page, "lab-01 / solved refused")
	if shown := textOf(page); strings.Contains(shown, "lab-02") {
		t.Errorf("the page of lab-01 has conflicts of lab-02:\n%s", shown)
	}
}

// TestPanicKeepsNoTurn: a page that cannot be made must not take the turn of the others for ever.
func TestPanicKeepsNoTurn(t *testing.T) {
	fail := true
	h := statuspage.New(func() statuspage.State {
		if fail {
			panic("a bug")
		}
		return sample()
	})
	view := func() (code int) {
		defer func() { _ = recover() }() // as net/http does
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Code
	}
	for range 10 {
		view()
	}
	fail = false
	if code := view(); code != http.StatusOK {
		t.Errorf("status %d", code)
	}
}

// slowViewer reads nothing until it is released.
type slowViewer struct {
	*httptest.ResponseRecorder
	release <-chan struct{}
}

func (v slowViewer) Write(p []byte) (int, error) {
	<-v.release
	return v.ResponseRecorder.Write(p)
}

// TestSlowViewersKeepNoTurn: the page is made before it is sent.
func TestSlowViewersKeepNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, release := statuspage.New(sample), make(chan struct{})
		var viewers sync.WaitGroup
		for range 10 {
			viewers.Go(func() {
				h.ServeHTTP(slowViewer{httptest.NewRecorder(), release}, httptest.NewRequest(http.MethodGet, "/", nil))
			})
		}
		synctest.Wait()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != http.StatusOK {
			t.Errorf("status %d", w.Code)
		}
		close(release)
		viewers.Wait()
	})
}

func TestOtherPagesAreNotFound(t *testing.T) {
	for path, want := range map[string]int{
		"/hosts/lab-01": 200, "/static/style.css": 200, "/static/page.js": 200, "/static/icon.svg": 200,
		"/hosts/lab-99": 404, "/hosts/": 404, "/hosts": 404, "/hosts/%2e%2e": 404, "/hosts/a/b": 404, "/hosts/%3Cscript%3E": 404, "/x": 404, "/a/b/c": 404,
		"/static/": 404, "/static/x": 404, "/static/..%2ftemplates%2fhost.html": 404, "/templates/host.html": 404,
	} {
		w, _ := getPage(t, sample(), path)
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", path, w.Code, want)
		}
		if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; ") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: policy %q", path, got)
		}
		if got := w.Header().Get("Referrer-Policy"); got != "no-referrer" {
			t.Errorf("%s: referrer policy %q", path, got)
		}
		if strings.Contains(w.Body.String(), "<script>") {
			t.Errorf("%s: a script in\n%s", path, w.Body)
		}
	}
}

// hostile are texts that would do something if they were not shown as text.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</main></body>`, "javascript:alert(1)", `{{.}}`,
	"\u202egnp.exe\u2066", "\u0430dmin", "\x00\x1b[31m\r\n", "\xff\xfe", `'; rm -rf / #`, "$(reboot)`reboot`", "../../x", "//evil.example/", strings.Repeat("<b>", 5000),
}

// fill sets each string in v to text, and each number to one that is not zero.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int, reflect.Int64:
		v.SetInt(12345)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), text)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text)
		fill(value, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Interface:
		v.Set(reflect.ValueOf(errors.New(text)))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(now))
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), text)
			}
		}
	}
}

// stateOf returns a state in which every text is the same, except for the name of one host.
func stateOf(text string) statuspage.State {
	var s statuspage.State
	fill(reflect.ValueOf(&s).Elem(), text)
	s.Hosts[0].Host.Host = "lab-01"
	s.Hosts[0].State = datadir.HostActive
	s.Hosts[0].Report.Silent = false
	s.Conflicts[1].Key.Host = "lab-01"
	s.Arrivals.Hosts["lab-01"] = s.Arrivals.Hosts[episode.Name(text)]
	return s
}

// structure returns the elements of a page with the names of their attributes, and checks the links.
func structure(t *testing.T, page *html.Node) (all []string) {
	t.Helper()
	link := regexp.MustCompile(`^((\.\./|\./)?(static/[a-z.]+|hosts/[^/?#]*)?|#main)$`)
	for n := range page.Descendants() {
		switch n.Type {
		case html.ElementNode:
			element := n.Data
			for _, a := range n.Attr {
				element += " " + a.Key
				if (a.Key == "href" || a.Key == "src") && !link.MatchString(a.Val) {
					t.Errorf("a link leads to %q", a.Val)
				}
			}
			all = append(all, element)
		case html.CommentNode:
			all = append(all, "comment")
		}
	}
	return all
}

// TestHostileTextIsNeverMarkup: whatever files and hosts say, the elements and attributes of a page are
// those of its template.
func TestHostileTextIsNeverMarkup(t *testing.T) {
	for _, path := range []string{"/", "/hosts/lab-01"} {
		w, page := getPage(t, stateOf("x"), path)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: status %d", path, w.Code)
		}
		want := structure(t, page)
		if len(want) < 100 {
			t.Fatalf("%s has %d elements only", path, len(want))
		}
		for _, text := range hostile {
			w, page := getPage(t, stateOf(text), path)
			if got := structure(t, page); !slices.Equal(got, want) {
				t.Errorf("%s, %.40q: %d elements, want %d", path, text, len(got), len(want))
			}
			if i := strings.IndexFunc(w.Body.String(), func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
				t.Errorf("%s, %.40q: %q is not printable ASCII", path, text, w.Body.String()[max(0, i-20):i+20])
			}
			if strings.Contains(textOf(page), "ZgotmplZ") {
				t.Errorf("%s, %.40q: a template puts text where it can do something", path, text)
			}
		}
	}
}

// TestCommandsAreQuoted: names need no quotes, and the page does not depend on that.
func TestCommandsAreQuoted(t *testing.T) {
	s := sample()
	s.Conflicts[0].Key.Name = "run'; reboot #"
	_, page := getPage(t, s, "/")
	mustShow(t, page, `shipper retry --keep-both 'run'\''; reboot #'`)
}

// TestEachKindOfProblemHasAdvice: and the sections that it names exist.
func TestEachKindOfProblemHasAdvice(t *testing.T) {
	source := fixture.ReadFile(t, "../fleet/problem.go") + fixture.ReadFile(t, "../hosts/hosts.go")
	kinds := map[string]bool{}
	for _, m := range regexp.MustCompile(`\badd\("([a-z]+)"|Kind: "([a-z]+)"|Problem\{\{"([a-z]+)"`).FindAllStringSubmatch(source, -1) {
		kinds[m[1]+m[2]+m[3]] = true
	}
	if len(kinds) < 10 {
		t.Fatalf("found only %v", kinds)
	}
	operations := fixture.ReadFile(t, "../../docs/operations.md")
	for kind := range kinds {
		s := sample()
		s.Hosts[0].Problems = []fleet.Problem{{Kind: kind, Text: "x"}}
		_, page := getPage(t, s, "/hosts/lab-01")
		shown := textOf(page)
		if !strings.Contains(shown, "begin with:") {
			t.Errorf("no advice on %q", kind)
		}
		for _, m := range regexp.MustCompile(`More: "([^"]+)"`).FindAllStringSubmatch(shown, -1) {
			if !strings.Contains(operations, "\n## "+m[1]+"\n") && !strings.Contains(operations, "\n## "+m[1]+" (") {
				t.Errorf("%q: docs/operations.md has no section %q", kind, m[1])
			}
		}
	}
	templates, err := os.ReadDir("templates")
	fixture.Must(t, err)
	for _, e := range templates {
		if text := fixture.ReadFile(t, "templates/"+e.Name()); regexp.MustCompile(`(?i) style=| on[a-z]+=|<style|https?:`).MatchString(text) {
			t.Errorf("%s has what the policy forbids", e.Name())
		}
	}
}

// TestHangingDiskHoldsFewViewers: the listener has few connections, and metrics and health need some.
func TestHangingDiskHoldsFewViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, reading := make(chan struct{}), atomic.Int64{}
		h := statuspage.New(func() statuspage.State { reading.Add(1); <-release; return sample() })
		var viewers sync.WaitGroup
		var refused, shown atomic.Int64
		for range 10 {
			viewers.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
				switch w.Code {
				case http.StatusServiceUnavailable:
					refused.Add(1)
				case http.StatusOK:
					shown.Add(1)
				}
			})
		}
		time.Sleep(time.Minute)
		if reading.Load() != 4 || refused.Load() != 6 {
			t.Errorf("%d viewers wait for the disk, and %d were refused", reading.Load(), refused.Load())
		}
		close(release)
		viewers.Wait()
		if shown.Load() != 4 {
			t.Errorf("%d pages were shown", shown.Load())
		}
	})
}

// TestAPageHasBoundedSize: no viewer looks at more than a thousand hosts.
func TestAPageHasBoundedSize(t *testing.T) {
	s := sample()
	for i := range 4096 {
		h := s.Hosts[0]
		h.Host.Host = episode.Name(fmt.Sprintf("fleet-%04d", i))
		s.Hosts = append(s.Hosts, h)
	}
	w, page := getPage(t, s, "/")
	mustShow(t, page, "And 3100 more", "lab-03")
	if n := w.Body.Len(); n > 3<<20 {
		t.Errorf("the page has %d bytes", n)
	}
}

// What the object store does not answer is not shown as zero.
func TestWhatABucketDoesNotSayIsUnknown(t *testing.T) {
	two, zero, archives := 2, 0, int64(12)
	for _, tt := range []struct {
		bucket s3backend.Status
		want   []string
	}{
		{s3backend.Status{Error: "https://s3.lab refuses connections", Archives: &archives}, []string{"https://s3.lab refuses connections", "12 archives", "unknown", "could not be read"}},
		{s3backend.Status{Archives: &archives, Quarantined: &zero, Repaired: &zero, Unfinished: &two, Scrub: new(scrub.Progress)}, []string{"2 uploads", "0 archives", "not started"}},
	} {
		s := sample()
		s.Bucket, s.Receiver.ScrubRate = &tt.bucket, 1
		w := httptest.NewRecorder()
		statuspage.New(func() statuspage.State { return s }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		for _, want := range tt.want {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%q is missing: %s", want, w.Body)
			}
		}
		if tt.bucket.Error != "" && strings.Contains(w.Body.String(), "0 archives") {
			t.Errorf("something unknown is shown as zero: %s", w.Body)
		}
	}
}
