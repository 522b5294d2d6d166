package notify

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"cis490/internal/durable"
)

// Limits for tests.
const (
	MaxPerType  = maxPerType
	MaxNames    = maxNames
	MaxPending  = maxPending
	MaxAttempts = maxAttempts
	MaxReported = maxReported

	MaxReportedHosts = maxReportedHosts

	SpaceSettled = spaceSettled
)

var (
	ParseSecret = parseSecret
	Sign        = sign
	Backoff     = backoff
)

// OpenQueue returns a queue in a directory.
func OpenQueue(path string, log *slog.Logger) *Queue {
	return newQueue(func() (*durable.Dir, error) { return durable.Open(path) }, log)
}

// Oldest returns the first event of a queue.
func (q *Queue) Oldest() (Entry, []byte, error) { return q.oldest() }

// ShareQueue makes it one to which another user can write.
func (q *Queue) ShareQueue() { q.shared = true }

// HangCommandQueue lets the queue of the command hang until a channel is closed.
func (n *Notifier) HangCommandQueue(until <-chan struct{}) {
	q := n.queues[CommandQueue]
	q.mu.Lock()
	defer q.mu.Unlock()
	open := q.open
	q.open = func() (*durable.Dir, error) { <-until; return open() }
}

// KeepStateFiles makes it the queue of a webhook.
func (q *Queue) KeepStateFiles() { q.keep = stateFiles() }

// Remove removes an event.
func (q *Queue) Remove(e Entry) { q.remove(e) }

// OpenWebhook returns a webhook whose requests go to a function.
func OpenWebhook(urlFile, secretFile string, q *Queue, transport http.RoundTripper, log *slog.Logger) *Webhook {
	w := newWebhook(urlFile, secretFile, "test", q, log)
	if transport != nil {
		w.client = &http.Client{Transport: transport, Timeout: requestTimeout, CheckRedirect: w.client.CheckRedirect}
	}
	return w
}

// Run sends events until ctx ends.
func (w *Webhook) Run(ctx context.Context) { w.run(ctx) }

// OpenEdges returns what finds edges, with its file in a directory.
func OpenEdges(path string, log *slog.Logger) *Edges {
	return &Edges{open: func() (*durable.Dir, error) { return durable.Open(path) }, log: log}
}

// CheckEndpoint returns what may be shown of a URL, or why it cannot be used.
func CheckEndpoint(text string) (string, error) {
	e, err := parseEndpoint(text)
	return e.public, err
}

// NewEvent returns an event as a Notifier queues it.
func NewEvent(t Type, data Data) Event {
	return Event{ID: newID(), Type: t, Time: time.Now().UTC(), Data: data}
}
