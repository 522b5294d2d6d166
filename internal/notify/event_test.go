package notify_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/notify"
)

// longest returns an event whose members are all as long as they can be.
func longest(t notify.Type) notify.Event {
	name := episode.Name(strings.Repeat("a", episode.MaxName))
	bytes, hours := int64(1)<<62, 12345.6
	return notify.NewEvent(t, notify.Data{
		Host: name, Episode: name, SHA256: digest.Digest{1}, Size: bytes, Repaired: true, Stored: digest.Digest{2},
		Finding: "unreadable", Removed: true, Contact: time.Now(), Free: &bytes, MinFree: &bytes, FullIn: &hours,
	})
}

func TestEventIsReadAsItWasWritten(t *testing.T) {
	for _, typ := range append(notify.Types(), notify.Test) {
		e := longest(typ)
		e.Dropped = 1 << 40
		text, err := e.Encode()
		fixture.Must(t, err)
		got, err := notify.ParseEvent(text)
		fixture.Must(t, err)
		again, err := got.Encode()
		fixture.Must(t, err)
		if string(again) != string(text) {
			t.Errorf("%s: got %s, want %s", typ, again, text)
		}
	}
}

// TestRefusedEvents: another user may write to a queue.
func TestRefusedEvents(t *testing.T) {
	const id, at = `"id":"msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ"`, `"timestamp":"2026-01-02T03:04:05Z"`
	for _, text := range []string{
		"", "null", "[]", "{}", `{"type":"stored"}`,
		`{` + id + `,"type":"other",` + at + `}`,
		`{` + id + `,"type":"stored"}`,
		`{"id":"msg_short","type":"stored",` + at + `}`,
		`{"id":"msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ.1","type":"stored",` + at + `}`,
		`{"id":"msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\nx: y","type":"stored",` + at + `}`,
		`{` + id + `,"type":"stored",` + at + `,"dropped":-1}`,
		`{` + id + `,"type":"stored",` + at + `,"data":{"host_id":"../x"}}`,
		`{` + id + `,"type":"stored",` + at + `} {}`,
		`{` + id + `,"type":"stored",` + at + `,"pad":"` + strings.Repeat("x", notify.MaxEvent) + `"}`,
	} {
		if _, err := notify.ParseEvent([]byte(text)); err == nil {
			t.Errorf("accepted %.200s", text)
		}
	}
	if _, err := notify.ParseEvent([]byte(` {` + id + `,"type":"test",` + at + `,"newer":1}` + "\n")); err != nil {
		t.Error(err)
	}
}

func FuzzParseEvent(f *testing.F) {
	for _, typ := range notify.Types() {
		text, err := longest(typ).Encode()
		fixture.Must(f, err)
		f.Add(text)
	}
	f.Add([]byte(`{"id":"msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ","type":"stored","timestamp":"2026-01-02T03:04:05Z","data":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := notify.ParseEvent(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(e.ID, ". \r\n") {
			t.Errorf("id %q", e.ID)
		}
		if _, err := json.Marshal(e); err != nil && e.Time.Year() < 10000 {
			t.Error(err)
		}
	})
}

// TestDocsListEveryEventAndMember: recipients rely on both.
func TestDocsListEveryEventAndMember(t *testing.T) {
	page := fixture.ReadFile(t, "../../docs/hooks.md")
	for _, typ := range append(notify.Types(), notify.Test) {
		if !strings.Contains(page, "\n| `"+string(typ)+"` |") {
			t.Errorf("docs/hooks.md has no row for %s", typ)
		}
	}
	for _, s := range []any{notify.Event{}, notify.Data{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(s)) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !strings.Contains(page, "`"+name+"`") {
				t.Errorf("docs/hooks.md does not name %s", name)
			}
		}
	}
}
