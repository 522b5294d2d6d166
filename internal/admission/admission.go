// Package admission decides what the receiver starts to do. Each resource that a request needs
// is taken from a budget here before it is used: per host and in total, at the TLS port as at
// the proxy's socket.
//
//   - [Conns]: connections, with their descriptors, goroutines and buffers
//   - [Limiter]: requests that work at the same time, such as uploads
//   - [Disk] and [Quota]: bytes and inodes
//   - [Requests]: requests per second
//   - [KeyLocks]: one operation per archive at a time
//   - [LimitLines]: lines of the log
//
// The package knows neither the protocol nor the store. Its refusals are [*RefusedError]
// values, which package refusal translates for the sender.
//
// Invariant: what is admitted fits, together with everything that was admitted before it. What
// is acquired is released by the value or function that the caller got for it.
package admission

import (
	"fmt"
	"time"
)

// RefusalReason says which budget is used up. As an error it is the one that callers branch on:
// errors.Is(err, admission.HostBusy).
type RefusalReason string

// The reasons of refusals.
const (
	HostBusy   RefusalReason = "the host has enough in flight"
	Busy       RefusalReason = "all hosts together have enough in flight"
	DiskFull   RefusalReason = "the disk has no space above its floor"
	QuotaSpent RefusalReason = "the host's archives have reached their quota"
)

func (r RefusalReason) Error() string { return string(r) }

// RefusedError says that a budget is used up.
type RefusedError struct {
	Reason     RefusalReason
	Detail     string        // for an operator at the sender's end
	RetryAfter time.Duration // when the sender should try again
}

func (e *RefusedError) Error() string { return e.Detail }

// Unwrap returns the reason, for [errors.Is].
func (e *RefusedError) Unwrap() error { return e.Reason }

// How long refused senders should wait before they try again.
const (
	busyRetryAfter = time.Second
	fullRetryAfter = 5 * time.Minute
)

func busyError(r RefusalReason, format string, args ...any) *RefusedError {
	return &RefusedError{Reason: r, Detail: fmt.Sprintf(format, args...), RetryAfter: busyRetryAfter}
}
