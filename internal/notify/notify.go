// Package notify tells other programs what happens at a receiver: by a webhook, and by a command that a
// separate unit runs. It also sends the heartbeat of both daemons.
//
//	<data_dir>/.hooks/<number>-<type>.json   events for the webhook
//	<data_dir>/.hooks/.delivery              since when the webhook has failed, and when it is tried next
//	<data_dir>/.hooks/.edges                 which hosts are silent, and whether space is low
//	<queue_dir>/<number>-<type>.json         events for the command
//
// Start with [Notifier.Notify]. A [Queue] bounds what waits on disk, a [Webhook] delivers it, and a
// [Runner] runs the command.
//
// Invariant: nothing waits for an event. Notify neither blocks nor touches the disk, and an event that
// cannot be queued is counted and dropped. What is queued is delivered at least once, in order. A URL is a
// secret: only its scheme and host appear in logs, metrics and errors.
package notify

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/durable"
)

// dirName is the directory of the webhook's queue in the data directory.
const dirName = ".hooks"

// Files in that directory that are not events.
const (
	deliveryFile = ".delivery"
	edgesFile    = ".edges"
)

// stateFiles returns the names in the directory of the webhook that are not events.
func stateFiles() []string {
	return []string{deliveryFile, durable.TempName(deliveryFile), edgesFile, durable.TempName(edgesFile)}
}

// Layout describes the names that this package creates in the data directory.
func Layout() durable.Layout {
	return durable.Layout{{
		Match: durable.MatchNames(dirName), Perm: 0o750, Dir: true,
		Below: durable.Layout{
			{Match: durable.MatchNames(stateFiles()...), Perm: entryPerm},
			{Match: func(name string) bool {
				_, event := parseEntry(name)
				return event || isTemp(name)
			}, Perm: entryPerm},
		},
	}}
}

// Limits of a Notifier.
const (
	maxPending  = 256             // events in memory that wait for the disk
	closeWithin = 2 * time.Second // to write the events that are still in memory
)

// Names of the queues, in metrics and JSON.
const (
	WebhookQueue = "webhook"
	CommandQueue = "command"
)

// Notifier queues events. A nil Notifier discards them.
type Notifier struct {
	log     *slog.Logger
	wanted  []Type
	queues  map[string]*Queue
	webhook *Webhook // nil without a webhook
	edges   *Edges

	events  chan Event
	missed  map[Type]*atomic.Int64 // events that found the channel full
	stop    chan struct{}
	once    sync.Once
	stopped chan struct{}
}

// Open returns the Notifier of a receiver with an open data directory, or nil if c has no hooks. It
// returns only storage faults: the receiver works without hooks. agent names the program in requests.
func Open(c Config, data *durable.Dir, agent string, log *slog.Logger) (*Notifier, error) {
	if !c.IsEnabled() {
		return nil, nil
	}
	// The directory is made nowhere else: MakeDir syncs the data directory, and a failed sync must end the
	// receiver.
	switch dir, err := data.MakeDir(dirName); {
	case errors.Is(err, durable.ErrFault):
		return nil, err
	case err != nil:
		log.Warn("directory of hooks not created", "err", err, "hint", "events are dropped; remove the cause, then restart the receiver")
	default:
		dir.Close()
	}
	n := &Notifier{
		log: log, wanted: c.Events, queues: make(map[string]*Queue),
		events: make(chan Event, maxPending), missed: make(map[Type]*atomic.Int64),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	for _, t := range allTypes() {
		n.missed[t] = new(atomic.Int64)
	}
	openHooks := func() (*durable.Dir, error) { return data.OpenDir(dirName) }
	n.edges = &Edges{open: openHooks, log: log}
	if c.URLFile != "" {
		q := newQueue(openHooks, log.With("queue", WebhookQueue))
		q.keep = stateFiles()
		n.queues[WebhookQueue] = q
		n.webhook = newWebhook(string(c.URLFile), string(c.SecretFile), agent, q, log)
	}
	if c.QueueDir != "" {
		n.queues[CommandQueue] = newQueue(func() (*durable.Dir, error) { return durable.Open(string(c.QueueDir)) }, log.With("queue", CommandQueue))
	}
	go n.writeEvents()
	return n, nil
}

// Notify queues an event for the hooks. It sets the id, and the time unless that is set. It never blocks.
func (n *Notifier) Notify(e Event) {
	if n == nil || !slices.Contains(n.wanted, e.Type) {
		return
	}
	e.ID = newID()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	select {
	case n.events <- e:
	default:
		n.missed[e.Type].Add(1)
	}
}

// writeEvents writes events to the queues until the Notifier is closed.
func (n *Notifier) writeEvents() {
	defer close(n.stopped)
	n.checkQueueDir()
	for {
		select {
		case e := <-n.events:
			n.addToQueues(e)
		case <-n.stop:
			for {
				select {
				case e := <-n.events:
					n.addToQueues(e)
				default:
					return
				}
			}
		}
	}
}

// checkQueueDir warns if the queue of the command cannot be used. Otherwise only the next event would show
// it.
func (n *Notifier) checkQueueDir() {
	q := n.queues[CommandQueue]
	if q == nil {
		return
	}
	if err := q.check(); err != nil {
		n.log.Warn("command queue cannot be used", "err", err, "hint", "correct hooks.queue_dir; it is tried again with each event")
	}
}

func (n *Notifier) addToQueues(e Event) {
	missed := n.missed[e.Type].Swap(0)
	for _, q := range n.queues {
		q.countDropped(e.Type, missed)
		q.Add(e)
	}
}

// Deliver sends queued events to the webhook until ctx ends. A failing webhook is not an error.
func (n *Notifier) Deliver(ctx context.Context) {
	if n != nil && n.webhook != nil {
		n.webhook.run(ctx)
	}
}

// Reload reads the URL and the secret of the webhook again, and ends its wait for the next attempt.
func (n *Notifier) Reload() {
	if n != nil && n.webhook != nil {
		n.webhook.Reload()
	}
}

// Edges returns the detector of silent hosts and low space. It is nil if n is.
func (n *Notifier) Edges() *Edges {
	if n == nil {
		return nil
	}
	return n.edges
}

// Counts says what the hooks have done since the start.
type Counts struct {
	Dropped           map[string]int64 // events, by queue
	Delivered, Failed int64            // attempts of the webhook
}

// Counts returns what the hooks have done since the start. It does not wait for the disk.
func (n *Notifier) Counts() Counts {
	c := Counts{Dropped: make(map[string]int64)}
	for name, q := range n.queues {
		c.Dropped[name] = q.Dropped()
	}
	if n.webhook != nil {
		c.Delivered, c.Failed = n.webhook.delivered.Load(), n.webhook.failed.Load()
	}
	return c
}

// Close writes the events that are in memory, and closes the queues. It returns false if writing has not
// ended within two seconds: then the data directory is still in use, and must stay open.
func (n *Notifier) Close() (ended bool, err error) {
	if n == nil {
		return true, nil
	}
	n.once.Do(func() { close(n.stop) })
	select {
	case <-n.stopped:
	case <-time.After(closeWithin):
		n.log.Warn("events not written at end", "events", len(n.events))
		return false, nil
	}
	var errs []error
	for _, q := range n.queues {
		errs = append(errs, q.Close())
	}
	return true, errors.Join(errs...)
}

// QueueState describes a queue at one moment.
type QueueState struct {
	Queue  string           `json:"queue"` // "webhook" or "command"
	Queued int64            `json:"queued"`
	Types  map[string]int64 `json:"types,omitempty"` // of Queued
	Oldest time.Time        `json:"oldest,omitzero"` // when the oldest event was queued
	Error  string           `json:"error,omitempty"` // why the queue cannot be read, or the webhook fails
	Since  time.Time        `json:"failing_since,omitzero"`
	Next   time.Time        `json:"next_attempt,omitzero"`
	Paused bool             `json:"paused,omitempty"` // the webhook is not called before a reload

	// ReadErr is why the queue cannot be read, or not all of it. Then Error has its text.
	ReadErr error `json:"-"`
}

// Inspect reads the queues of a configuration. It changes nothing, and may run while a receiver does.
func Inspect(c Config, dataDir string) []QueueState {
	var all []QueueState
	if c.URLFile != "" {
		s := QueueState{Queue: WebhookQueue}
		s.read(filepath.Join(dataDir, dirName))
		all = append(all, s)
	}
	if c.QueueDir != "" {
		s := QueueState{Queue: CommandQueue}
		s.read(string(c.QueueDir))
		all = append(all, s)
	}
	return all
}

// read reads the queue at a path.
func (s *QueueState) read(path string) {
	dir, err := durable.Open(path)
	if err != nil {
		s.setError(err)
		return
	}
	defer dir.Close()
	l, err := readListing(dir)
	if err != nil {
		s.setError(err)
		return
	}
	s.Queued, s.Types = int64(len(l.entries)), make(map[string]int64)
	for _, e := range l.entries {
		s.Types[string(e.Type)]++
		// Not by its number: if the clock was ever ahead, numbers stay ahead of it for long.
		if st, err := dir.Lstat(e.Name); err == nil && (s.Oldest.IsZero() || st.ChangedAt().Before(s.Oldest)) {
			s.Oldest = st.ChangedAt().UTC()
		}
	}
	if s.Queue == WebhookQueue {
		d := readDelivery(dir)
		s.Error, s.Since, s.Next, s.Paused = d.Error, d.FailingSince, d.NextAttempt, d.Paused
	}
	if err := l.checkSize(dir); err != nil {
		s.setError(err)
	}
}

func (s *QueueState) setError(err error) {
	if s.Queue == WebhookQueue && errors.Is(err, fs.ErrNotExist) {
		return // nothing has been queued yet
	}
	s.ReadErr, s.Error = err, err.Error()
}
