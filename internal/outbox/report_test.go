package outbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
)

func TestReportIsReadAsItWasWritten(t *testing.T) {
	l := newLab(t)
	if _, err := l.ReadReport(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is none: %v", err)
	}
	at := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	r := outbox.Report{WrittenAt: at, PID: 7, FailingTotal: 300, Receiver: &outbox.ReceiverOutage{Since: at, Cause: `"x"`}}
	for i := range outbox.MaxFailing {
		cause := make([]byte, outbox.MaxCause)
		for j := range cause {
			cause[j] = '"' // what grows most
		}
		r.Failing = append(r.Failing, outbox.Failure{
			Episode: episode.Name(fmt.Sprintf("%0128d", i)), Attempts: 3, Since: at, LastAt: at, NextAt: at, Cause: string(cause),
		})
	}
	for range 2 { // the second replaces the first
		fixture.Must(l, l.WriteReport(r))
	}
	got, err := l.ReadReport()
	fixture.Must(l, err)
	want, _ := json.Marshal(r)
	if b, _ := json.Marshal(got); string(b) != string(want) {
		t.Errorf("read %.300s", b)
	}
	l.wantFiles(".status.json")
	if st, err := os.Lstat(l.filePath(".status.json")); err != nil || st.Mode() != 0o640 {
		t.Errorf("got %v, %v, want Mode %v", st.Mode(), err, os.FileMode(0o640))
	}
}

func FuzzReport(f *testing.F) {
	b, _ := json.Marshal(outbox.Report{FailingTotal: 2, Failing: []outbox.Failure{{Episode: "run-1", Attempts: 1}}, Receiver: &outbox.ReceiverOutage{}})
	f.Add(b)
	f.Add([]byte(`{"failing":[{"episode_id":"../x","attempts":1}],"failing_total":1}`))
	f.Add([]byte(`{"failing":[{"attempts":1}],"failing_total":-1}`))
	f.Add([]byte(`{"written_at":"0000-01-01T00:00:00+23:59"}`))
	l := newLab(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		fixture.Must(t, os.WriteFile(l.filePath(".status.json"), content, 0o640))
		r, err := l.ReadReport()
		if err != nil {
			return
		}
		if len(r.Failing) > outbox.MaxFailing || r.FailingTotal < len(r.Failing) {
			t.Errorf("it lists %d of %d", len(r.Failing), r.FailingTotal)
		}
		for _, f := range r.Failing {
			if _, err := episode.ParseName(string(f.Episode)); err != nil || f.Attempts < 1 {
				t.Errorf("%+v, %v", f, err)
			}
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("it cannot be shown: %v", err)
		}
	})
}
