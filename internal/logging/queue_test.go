package logging_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/logging"
)

// stuckWriter waits in each Write until it is released.
type stuckWriter struct {
	release chan struct{}
	fixture.Log
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.release
	return w.Log.Write(p)
}

func TestQueueNeverWaitsForItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuckWriter{release: make(chan struct{})}
		q := logging.NewQueue(w, logging.Style{Form: logging.ForJournal})
		log := slog.New(logging.NewHandler(q, slog.LevelInfo, logging.Style{Form: logging.ForJournal}))
		const lines = 50_000
		long := strings.Repeat("x", 100)
		for n := range lines { // would wait for ever
			log.Info("line", "n", n, "text", long)
		}
		close(w.release)
		synctest.Wait()
		log.Info("the last")
		q.Close(time.Hour)
		out := strings.Split(strings.TrimSuffix(w.String(), "\n"), "\n")
		if len(w.String()) > 2<<20 {
			t.Errorf("%d bytes were kept", len(w.String()))
		}
		var dropped int
		if _, err := fmt.Sscanf(out[len(out)-2], "<4>log lines dropped dropped=%d", &dropped); err != nil {
			t.Fatalf("no count of what is missing in %q", out[len(out)-2:])
		}
		if written := len(out) - 2; written+dropped != lines || dropped == 0 {
			t.Errorf("%d lines were written and %d dropped, of %d", written, dropped, lines)
		}
		if out[0] != `<6>line n=0 text=`+long || out[len(out)-1] != "<6>the last" {
			t.Errorf("it begins with %q and ends with %q", out[0], out[len(out)-1])
		}
	})
}

func TestQueueCountsDroppedLinesInJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuckWriter{release: make(chan struct{})}
		style := logging.Style{Form: logging.ForJournal, Format: logging.JSON}
		q := logging.NewQueue(w, style)
		log := slog.New(logging.NewHandler(q, slog.LevelInfo, style))
		for range 200 {
			log.Info("line", "text", strings.Repeat("x", 10<<10))
		}
		close(w.release)
		synctest.Wait()
		q.Close(time.Hour)
		out := strings.Split(strings.TrimSuffix(w.String(), "\n"), "\n")
		var last struct {
			Level, Msg string
			Dropped    int
		}
		err := json.Unmarshal([]byte(strings.TrimPrefix(out[len(out)-1], "<4>")), &last)
		if err != nil || last.Level != "WARN" || last.Msg != "log lines dropped" || last.Dropped+len(out)-1 != 200 || last.Dropped == 0 {
			t.Errorf("it ends with %q: %v", out[len(out)-1], err)
		}
	})
}

func TestQueueIsFlushedInBoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuckWriter{release: make(chan struct{})}
		q := logging.NewQueue(w, logging.Style{Form: logging.ForFile})
		fmt.Fprintln(q, "one")
		start := time.Now()
		q.Close(time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("closing took %v", took)
		}
		close(w.release)
		synctest.Wait()
		if w.String() != "one\n" {
			t.Errorf("it wrote %q", w.String())
		}
		fmt.Fprintln(q, "after the end") // must not panic
		q.Close(time.Second)
	})
}
