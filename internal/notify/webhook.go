package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"cis490/internal/durable"
	"cis490/internal/printable"
)

// Waits between two attempts.
const (
	minBackoff = 5 * time.Second
	maxBackoff = time.Hour
	// idleWait is how often the queue is read even if no event was added.
	idleWait = time.Minute
)

// Webhook sends the events of a queue, one at a time.
type Webhook struct {
	urlFile, secretFile, agent string

	queue  *Queue
	client *http.Client
	log    *slog.Logger
	reload chan struct{} // has a value after a reload was requested

	delivered, failed atomic.Int64 // attempts

	// Used by run only.
	to       *endpoint // nil: to be loaded
	delivery Delivery
	unsaved  bool // the file may differ from delivery
	warned   bool // the failure was logged
	attempts int
}

// Delivery is the state of a webhook that fails. It is saved for the commands.
type Delivery struct {
	FailingSince time.Time `json:"failing_since,omitzero"`
	NextAttempt  time.Time `json:"next_attempt,omitzero"`
	Error        string    `json:"error,omitempty"`
	Paused       bool      `json:"paused,omitempty"` // until a reload
}

func newWebhook(urlFile, secretFile, agent string, queue *Queue, log *slog.Logger) *Webhook {
	return &Webhook{
		urlFile: urlFile, secretFile: secretFile, agent: agent, queue: queue, client: newClient(),
		log: log, reload: make(chan struct{}, 1),
	}
}

// Reload reads the URL and the secret again, and ends the wait for the next attempt.
func (w *Webhook) Reload() {
	select {
	case w.reload <- struct{}{}:
	default:
	}
}

// run sends events until ctx ends.
func (w *Webhook) run(ctx context.Context) {
	defer w.client.CloseIdleConnections()
	w.load()
	w.checkFiles()
	for ctx.Err() == nil {
		entry, body, err := w.queue.oldest()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			w.wait(ctx, idleWait, w.queue.wake)
		case err != nil:
			w.noteFailure(err)
			w.wait(ctx, w.delivery.untilNext(), nil)
		default:
			if err = w.attempt(ctx, body); err == nil {
				w.noteDelivered(entry)
			} else if ctx.Err() == nil {
				w.noteFailure(err)
				w.wait(ctx, w.delivery.untilNext(), nil)
			}
		}
	}
}

// wait waits for a time, for a reload, and for a value of wake.
func (w *Webhook) wait(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	case <-w.reload:
		w.to, w.attempts = nil, 0
		w.resume()
		w.checkFiles()
	}
}

// load reads the state that an earlier process has saved. Without it, a webhook that works again would be
// shown as failing forever.
func (w *Webhook) load() {
	dir, err := w.queue.open()
	if err != nil {
		w.unsaved = !errors.Is(err, fs.ErrNotExist)
		return
	}
	defer dir.Close()
	if _, err := dir.Lstat(deliveryFile); err != nil {
		w.unsaved = !errors.Is(err, fs.ErrNotExist)
		return
	}
	w.delivery = readDelivery(dir)
	w.unsaved = w.delivery.FailingSince.IsZero() // it could not be read
	w.resume()
}

// resume ends a pause, and the wait for the next attempt.
func (w *Webhook) resume() {
	if !w.delivery.FailingSince.IsZero() {
		w.delivery.Paused, w.delivery.NextAttempt = false, time.Time{}
		w.save()
	}
}

// checkFiles warns if a file cannot be used, at the start and after a reload. Otherwise only the next event
// would show it.
func (w *Webhook) checkFiles() {
	if _, err := loadEndpoint(w.urlFile, w.secretFile); err != nil {
		w.log.Warn("webhook cannot be used", "err", err, "hint", "correct hooks.url_file and hooks.secret_file; they are read again before each attempt")
	}
}

// attempt sends the bytes of an event once.
func (w *Webhook) attempt(ctx context.Context, body []byte) error {
	if w.to == nil {
		to, err := loadEndpoint(w.urlFile, w.secretFile)
		if err != nil {
			return err
		}
		w.to = &to
	}
	return postEvent(ctx, w.client, *w.to, w.agent, body)
}

// postEvent sends a signed event.
func postEvent(ctx context.Context, client *http.Client, to endpoint, agent string, body []byte) error {
	e, err := ParseEvent(body)
	if err != nil {
		return err
	}
	now := time.Now()
	return sendRequest(ctx, client, http.MethodPost, to, bytes.NewReader(body), map[string]string{
		"Content-Type": "application/json", "User-Agent": agent,
		"webhook-id": e.ID, "webhook-timestamp": strconv.FormatInt(now.Unix(), 10),
		"webhook-signature": sign(to.secret, e.ID, now, body),
	})
}

// noteDelivered removes an event that the webhook has accepted.
func (w *Webhook) noteDelivered(e Entry) {
	w.delivered.Add(1)
	w.queue.remove(e)
	w.attempts = 0
	if since := w.delivery.FailingSince; !since.IsZero() {
		w.log.Info("webhook works again", "url", w.to.public, "failed_for", time.Since(since).Round(time.Second))
	} else if !w.unsaved {
		return
	}
	w.delivery, w.warned = Delivery{}, false
	w.save()
}

// noteFailure decides when the next attempt is, and logs the first failure.
func (w *Webhook) noteFailure(err error) {
	w.failed.Add(1)
	now := time.Now()
	if w.delivery.FailingSince.IsZero() {
		w.delivery.FailingSince = now.UTC()
	}
	status, answered := errors.AsType[*StatusError](err)
	wait := backoff(w.attempts)
	w.attempts++
	if answered {
		wait = max(wait, min(status.RetryAfter, maxBackoff))
	}
	gone := answered && status.Code == http.StatusGone
	log := w.log.With("url", w.publicURL(), "err", err)
	if gone && !w.delivery.Paused {
		log.Warn("webhook is gone", "hint", "write its new URL to hooks.url_file, then reload the receiver: it is not called before that")
	} else if !w.warned {
		log.Warn("webhook fails", "next_attempt", now.Add(wait).UTC().Format(time.RFC3339),
			"hint", "events wait in a queue; see 'receiver hooks list', and try it with 'receiver hooks test'")
	}
	w.warned = true
	w.delivery.Error, w.delivery.Paused, w.delivery.NextAttempt = printable.Clip(err.Error(), maxErrorText), gone, now.Add(wait).UTC()
	if gone {
		w.delivery.NextAttempt = time.Time{}
	}
	w.to = nil // the files may have been changed
	w.save()
}

func (w *Webhook) publicURL() string {
	if w.to == nil {
		return "unknown"
	}
	return w.to.public
}

// untilNext returns the time until the next attempt is due.
func (d Delivery) untilNext() time.Duration {
	if d.Paused {
		return time.Duration(1<<63 - 1)
	}
	return max(0, time.Until(d.NextAttempt))
}

// backoff returns the time to wait after a number of failures: from 5 s to an hour, give or take a quarter.
func backoff(failures int) time.Duration {
	d := min(maxBackoff, minBackoff<<min(failures, 20))
	return d - d/4 + rand.N(d/2+1)
}

// save saves the state for the commands. Nothing depends on it.
func (w *Webhook) save() {
	if dir, err := w.queue.open(); err == nil {
		w.unsaved = !writeState(dir, deliveryFile, w.delivery, w.log)
		dir.Close()
	}
}

// writeState writes a small file, and reports whether it could.
func writeState(dir *durable.Dir, name string, v any, log *slog.Logger) bool {
	text, err := json.Marshal(v)
	if err == nil {
		err = dir.WriteFileNoSync(name, append(text, '\n'), entryPerm)
	}
	if err != nil {
		log.Debug("state of hooks not saved", "file", name, "err", err)
	}
	return err == nil
}

// readState reads a small file into v, and reports whether it could.
func readState(dir *durable.Dir, name string, maxBytes int64, v any) bool {
	f, err := dir.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := durable.ReadAtMost(f, name, maxBytes)
	return err == nil && json.Unmarshal(text, v) == nil
}

func readDelivery(dir *durable.Dir) Delivery {
	var d Delivery
	if !readState(dir, deliveryFile, MaxEvent, &d) {
		return Delivery{}
	}
	return d
}

// SendTest sends a test event to the webhook of a configuration, once. It returns the scheme and host of
// its URL.
func SendTest(ctx context.Context, c Config, agent string, e Event) (public string, err error) {
	to, err := loadEndpoint(string(c.URLFile), string(c.SecretFile))
	if err != nil {
		return "", err
	}
	body, err := e.Encode()
	if err != nil {
		return to.public, err
	}
	client := newClient()
	defer client.CloseIdleConnections()
	return to.public, postEvent(ctx, client, to, agent, body)
}

// NewTest returns a test event.
func NewTest(now time.Time) Event { return Event{ID: newID(), Type: Test, Time: now.UTC()} }

// QueueTest adds a test event to the queue of the command.
func QueueTest(c Config, e Event) error {
	dir, err := durable.Open(string(c.QueueDir))
	if err != nil {
		return err
	}
	q := newQueue(func() (*durable.Dir, error) { return dir, nil }, slog.New(slog.DiscardHandler))
	defer q.Close()
	q.mu.Lock()
	defer q.mu.Unlock()
	fits, err := q.writeEvent(e)
	if err == nil && !fits {
		err = errors.New("the queue has too many test events: is cis490-hook.path active?")
	}
	return err
}
