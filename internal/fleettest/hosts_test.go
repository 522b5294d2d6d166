package fleettest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// maxDelay is how soon all receivers must follow a change at one of them.
const maxDelay = 5 * time.Second

// on runs a command of one receiver.
func (f *fleet) on(i int, args ...string) labtest.Result {
	r := f.receivers[i]
	return r.Receiver(append([]string{"--config", r.Path("receiver.toml")}, args...)...)
}

// ping returns the status of a ping to one receiver.
func (f *fleet) ping(t testing.TB, c *http.Client, i int) int {
	t.Helper()
	resp, err := c.Post(f.receivers[i].URL("/v1/ping"), "", nil)
	fixture.Must(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	fixture.Must(t, err)
	return resp.StatusCode
}

// waitPings waits until all receivers answer pings of a host with a status.
func (f *fleet) waitPings(t testing.TB, c *http.Client, want int) {
	t.Helper()
	begun := time.Now()
	for i := range f.receivers {
		labtest.Eventually(t, fmt.Sprintf("receiver %d answers with %d", i, want), func() bool { return f.ping(t, c, i) == want })
	}
	if took := time.Since(begun); took > maxDelay {
		t.Errorf("all receivers answered with %d after %v, want within %v", want, took, maxDelay)
	}
}

// uploadInFlight begins an upload that lasts until its request ends, and returns how it ends.
func uploadInFlight(t *testing.T, s *labtest.Sender, name string) <-chan string {
	t.Helper()
	archive := noise(12<<20, 7)
	at, err := s.Announce(name, archive)
	fixture.Must(t, err)
	body, feed := io.Pipe()
	ended := make(chan string, 1)
	go func() {
		got, err := s.PatchFrom(at.Where, 0, body, int64(len(archive)), true)
		ended <- fmt.Sprintf("%d %s %v", got.Status, got.Told, err)
		body.Close()
	}()
	_, err = feed.Write(archive[:8<<20]) // more than fits between the two
	fixture.Must(t, err)
	t.Cleanup(func() { feed.Close() })
	return ended
}

// A host that is disabled at one receiver is refused by all, whatever it is sending to which.
func TestAHostIsDisabledAtAllReceivers(t *testing.T) {
	requireFleet(t)
	f := newFleet(t, receiverCount)
	victim, witness := f.lab.Host("host-1"), f.lab.Host("host-2")
	client, other := victim.Client(t), witness.Client(t)
	f.waitPings(t, client, http.StatusOK)
	var uploads []<-chan string
	for i := range f.receivers { // haproxy sends each to another receiver
		uploads = append(uploads, uploadInFlight(t, victim.Sender(t), fmt.Sprintf("run-%d", i)))
	}
	if got := f.on(0, "hosts", "disable", "host-1").MustExit(t, 0).Stdout; got != "host-1: disabled\n" {
		t.Errorf("got %q", got)
	}
	begun := time.Now()
	for i, ended := range uploads {
		got := fixture.ReceiveWithin(t, time.Minute, ended, "the end of an upload")
		if took := time.Since(begun); took > maxDelay || !strings.HasPrefix(got, "403 ") || !strings.Contains(got, "is disabled") {
			t.Errorf("upload %d ended after %v with %s, want 403 within %v", i, took, got, maxDelay)
		}
	}
	f.waitPings(t, client, http.StatusForbidden)
	f.waitPings(t, other, http.StatusOK)
	for i := range f.receivers {
		if got := f.hosts(t, i); !strings.Contains(got, "host-1 disabled") {
			t.Errorf("receiver %d lists %s, want host-1 disabled", i, got)
		}
	}

	// A receiver that did not run meanwhile.
	f.receivers[1].Stop()
	f.on(2, "hosts", "enable", "host-1").MustExit(t, 0)
	f.receivers[1].Start()
	f.waitPings(t, client, http.StatusOK)
	victim.Episode("run-0")
	victim.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
}

// join makes a machine join as host-1 at the first receiver.
func (f *fleet) join(t testing.TB, h *labtest.Host, args ...string) {
	t.Helper()
	args = append([]string{"invite", "host-1", "--url", "https://" + f.receivers[0].Proxy.Addr()}, args...)
	words := strings.Fields(f.on(0, args...).MustExit(t, 0).Stdout)
	h.Run("join", words[len(words)-1]).MustExit(t, 0)
}

// pingFrom returns the exit code of a ping from a machine to one receiver.
func (f *fleet) pingFrom(t testing.TB, h *labtest.Host, i int) int {
	t.Helper()
	text, path := fixture.ReadFile(t, h.Path("lab-host.toml")), h.Path("lab-host.toml")
	for _, r := range f.receivers {
		text = strings.ReplaceAll(text, r.Proxy.Addr(), f.receivers[i].Proxy.Addr())
	}
	fixture.WriteFile(t, path, text)
	return h.Run("--ping").Code
}

// A machine that was replaced is refused by receivers that did not issue the new certificate, and keep
// no records of hosts.
func TestAMachineIsReplacedAtAllReceivers(t *testing.T) {
	requireFleet(t)
	f := newFleet(t, receiverCount)
	former, next := f.lab.Newcomer("former"), f.lab.Newcomer("next")
	f.join(t, former)
	check := func(h *labtest.Host, want int) {
		t.Helper()
		for i := range f.receivers {
			labtest.Eventually(t, fmt.Sprintf("a ping of %s to receiver %d exits with %d", h.Name, i, want), func() bool { return f.pingFrom(t, h, i) == want })
		}
	}
	check(former, 0)
	f.join(t, next, "--again")
	check(former, 4)
	check(next, 0)

	// One that was removed can only join again, and that lets it in everywhere.
	f.on(2, "hosts", "remove", "host-1").MustExit(t, 0)
	check(next, 4)
	f.join(t, former, "--again")
	check(former, 0)
	check(next, 4)
}

// listed is what a receiver lists of a host.
type listed struct {
	Host   string `json:"host_id"`
	State  string `json:"state"`
	Report *struct {
		ReceivedAt time.Time `json:"received_at"`
		Waiting    int       `json:"waiting"`
	} `json:"report"`
	Problems []struct {
		Kind string `json:"kind"`
	} `json:"problems"`
}

// hosts returns what one receiver lists, as text that can be compared.
func (f *fleet) hosts(t testing.TB, i int) string {
	t.Helper()
	var all []string
	for line := range strings.Lines(f.on(i, "hosts", "--json").MustExit(t, 0).Stdout) {
		var h listed
		fixture.Must(t, json.Unmarshal([]byte(line), &h))
		text := h.Host + " " + h.State
		if h.Report != nil {
			text += fmt.Sprintf(" at %s waiting %d", h.Report.ReceivedAt.Format(time.RFC3339), h.Report.Waiting)
		}
		for _, p := range h.Problems {
			text += " " + p.Kind
		}
		all = append(all, text)
	}
	return strings.Join(all, "\n")
}

// report reports to one receiver that episodes wait.
func (f *fleet) report(t testing.TB, c *http.Client, i, waiting int) {
	t.Helper()
	body := fmt.Sprintf(`{"instance": "0123456789abcdef0123456789abcdef", "interval_seconds": 300, "waiting": %d}`, waiting)
	resp, err := c.Post(f.receivers[i].URL("/v1/report"), "application/json", strings.NewReader(body))
	fixture.Must(t, err)
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode/100 != 2 {
		t.Fatalf("report to receiver %d: got %s: %s", i, resp.Status, text)
	}
}

// age makes the copies of a host's report, and the starts of the receivers, older.
func (f *fleet) age(t testing.TB, host string, age time.Duration) {
	t.Helper()
	for _, r := range f.receivers {
		for file, members := range map[string][]string{host + ".report": {"received_at"}, ".receiver": {"started_at", "shared_since"}} {
			path := r.Path("data", "reports", file)
			var content map[string]any
			fixture.Must(t, json.Unmarshal([]byte(fixture.ReadFile(t, path)), &content))
			for _, member := range members {
				content[member] = time.Now().Add(-age).UTC().Truncate(time.Second)
			}
			text, err := json.Marshal(content)
			fixture.Must(t, err)
			fixture.WriteFile(t, path, string(text))
		}
	}
}

// Hosts that report to whichever receiver they reach are listed by all of them, and judged alike.
func TestReceiversAgreeOnHosts(t *testing.T) {
	requireFleet(t)
	f := newFleet(t, receiverCount)
	for n := range 3 {
		c := f.lab.Host(fmt.Sprintf("host-%d", n)).Client(t)
		f.report(t, c, n, n)
	}
	var lists []string
	labtest.Within(t, 2*time.Minute, "all receivers list three hosts", func() bool {
		lists = nil
		for i := range f.receivers {
			lists = append(lists, f.hosts(t, i))
		}
		return lists[0] == lists[1] && lists[1] == lists[2] && strings.Count(lists[0], "waiting") == 3
	})
	if !strings.Contains(lists[0], "host-2 active at ") || strings.Contains(lists[0], "silent") {
		t.Errorf("got\n%s\nwant three hosts without a problem", lists[0])
	}
	labtest.Within(t, time.Minute, "all receivers find host-1 silent, and no other", func() bool {
		f.age(t, "host-1", 20*time.Minute) // a receiver writes its own file each minute
		for i := range f.receivers {
			if got := f.hosts(t, i); strings.Count(got, "silent") != 1 || !strings.Contains(got, "waiting 1 silent") {
				return false
			}
		}
		return true
	})
	f.report(t, f.lab.Host("host-3").Client(t), 0, 1)
	f.on(1, "hosts", "remove", "host-3").MustExit(t, 0)
	labtest.Eventually(t, "all receivers list host-3 as removed", func() bool {
		for i := range f.receivers {
			if !strings.Contains(f.hosts(t, i), "host-3 removed") {
				return false
			}
		}
		return true
	})
	if got := list(t, f.engine.open(), "hosts/reports/"); len(got) != 3 {
		t.Errorf("got the reports %v, want those of three hosts", got)
	}
}
