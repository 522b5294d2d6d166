package admission_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"cis490/internal/admission"
	"cis490/internal/fixture"
)

// TestNoFloodHidesTheLinesOfOthers, nor the errors of the host that causes it.
func TestNoFloodHidesTheLinesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(admission.LimitLines(slog.NewTextHandler(&b, nil)))
		lines := func(text string) int { return strings.Count(b.String(), text) }
		const seconds = 30
		for range seconds {
			for range 5000 {
				log.Info("refused", "host", "bad")
				log.With("host", "worse").Warn("refused too")
				log.Error("damaged", "host", "bad")
			}
			log.Info("stored", "host", "good")
			time.Sleep(time.Second)
		}
		log.Error("damaged at last", "host", "bad")
		if n := lines("\n"); n > 10000 {
			t.Errorf("%d lines in 30 s: journald drops some of them", n)
		}
		if n := lines("msg=stored"); n != seconds {
			t.Errorf("%d of %d lines of another host", n, seconds)
		}
		if lines("damaged at last") != 1 {
			t.Error("an error is missing")
		}
		if lines("suppressed=") == 0 || lines("suppressed=0") != 0 {
			t.Error("no line says how many are missing before it")
		}
	})
}

// TestLinesOfAHealthyDayAreComplete, even with a backlog of thousands of episodes.
func TestLinesOfAHealthyDayAreComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(admission.LimitLines(slog.NewTextHandler(&b, nil)))
		for range 3000 {
			log.Info("stored", "host", "h")
			time.Sleep(2 * time.Millisecond) // 500 a second
		}
		if n := strings.Count(b.String(), "\n"); n != 3000 || strings.Contains(b.String(), "suppressed") {
			t.Errorf("%d of 3000 lines", n)
		}
	})
}

// TestLimitedHandlerIsAHandler by the rules of package slog.
func TestLimitedHandlerIsAHandler(t *testing.T) {
	var b bytes.Buffer
	err := slogtest.TestHandler(admission.LimitLines(slog.NewJSONHandler(&b, nil)), func() []map[string]any {
		return parseLines(t, b.Bytes())
	})
	if err != nil {
		t.Error(err)
	}
}

func parseLines(t *testing.T, b []byte) []map[string]any {
	t.Helper()
	var records []map[string]any
	for line := range bytes.Lines(b) {
		var r map[string]any
		fixture.Must(t, json.Unmarshal(line, &r))
		records = append(records, r)
	}
	return records
}
