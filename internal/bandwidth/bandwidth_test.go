package bandwidth_test

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/bandwidth"
	"cis490/internal/config"
	"cis490/internal/fixture"
)

func TestTimetableSaysWhatHoldsWhen(t *testing.T) {
	day := time.Date(2026, 11, 25, 0, 0, 0, 0, time.Local)
	for _, c := range []struct {
		table string
		at    string
		want  config.Bytes
	}{
		{"", "12:00", 0},
		{"off", "12:00", 0},
		{"1MiB", "00:00", 1 << 20},
		{"1MiB", "23:59", 1 << 20},
		{"08:00 1MiB, 18:00 off", "07:59", 0}, // from the evening before
		{"08:00 1MiB, 18:00 off", "08:00", 1 << 20},
		{"08:00 1MiB, 18:00 off", "17:59", 1 << 20},
		{"08:00 1MiB, 18:00 off", "18:00", 0},
		{"06:30 off,20:00  512KiB", "03:00", 512 << 10},
	} {
		var table bandwidth.Timetable
		if err := table.UnmarshalText([]byte(c.table)); err != nil {
			t.Errorf("%q: %v", c.table, err)
			continue
		}
		clock, err := time.ParseInLocation("15:04", c.at, time.Local)
		fixture.Must(t, err)
		now := day.Add(time.Duration(clock.Hour())*time.Hour + time.Duration(clock.Minute())*time.Minute)
		if got := table.LimitAt(now); got != c.want {
			t.Errorf("%q at %s: %v, want %v", c.table, c.at, got, c.want)
		}
	}
}

func TestWrongTimetableIsRefused(t *testing.T) {
	for _, s := range []string{"fast", "08:00", "25:00 1MiB", "08:00 fast", "18:00 off, 08:00 1MiB", "08:00 off, 08:00 1MiB", "-1", "08:00 -1MiB", "1MiB 08:00"} {
		var table bandwidth.Timetable
		if err := table.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q is taken for a timetable", s)
		}
	}
}

func FuzzTimetable(f *testing.F) {
	for _, s := range []string{"1MiB", "08:00 1MiB, 18:00 off", ",,", "00:00 0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var table bandwidth.Timetable
		if table.UnmarshalText([]byte(s)) == nil && table.LimitAt(time.Unix(0, 0)) < 0 {
			t.Errorf("%q is a limit below zero", s)
		}
	})
}

// TestAllSendersKeepToTheLimitTogether, in virtual time.
func TestAllSendersKeepToTheLimitTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table bandwidth.Timetable
		fixture.Must(t, table.UnmarshalText([]byte("1MiB")))
		const each, senders = 4 << 20, 4
		archive := bytes.NewReader(make([]byte, each))
		limiter := bandwidth.NewLimiter(table)
		startedAt := time.Now()
		done := make(chan error, senders)
		for range senders {
			go func() {
				_, err := io.Copy(io.Discard, io.NewSectionReader(limiter.LimitReader(t.Context(), archive), 0, each))
				done <- err
			}()
		}
		for range senders {
			fixture.Must(t, <-done)
		}
		if took := time.Since(startedAt); took < 15*time.Second || took > 17*time.Second {
			t.Errorf("%d senders of %d bytes took %v at 1 MiB/s, want 16s", senders, each, took)
		}
	})
}
