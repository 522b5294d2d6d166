package shipper_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

var codes = map[wire.Code]string{
	wire.BadName: "hold", wire.BadRequest: "hold", wire.DigestMissing: "hold", wire.DigestInvalid: "hold",
	wire.DigestMismatch: "hold", wire.TooLarge: "hold", wire.Unsupported: "hold", wire.Conflict: "hold",
	wire.LengthMismatch: "hold", wire.WrongType: "hold",
	wire.NoUpload: "pause", wire.OffsetMismatch: "pause", wire.Superseded: "pause",
	wire.TokenRefused: "pause", wire.Forbidden: "pause", wire.HostMismatch: "pause", wire.NotFound: "pause",
	wire.OtherStore: "pause", wire.BadMethod: "pause", wire.Stalled: "pause", wire.LengthRequired: "pause", wire.HostBusy: "pause",
	wire.Busy: "pause", wire.Draining: "pause", wire.Full: "pause", wire.Damaged: "pause", wire.Internal: "pause",
}

// An error about the episode holds it. An error about this host, the path or the receiver marks
// no episode.
func TestEveryRefusalHasItsVerdict(t *testing.T) {
	for code, want := range codes {
		reason := outbox.Reason("")
		if want == "hold" {
			reason = outbox.Refused
		}
		if code == wire.Conflict {
			reason = outbox.Conflict
		}
		err := error(&uplink.UnreachableError{Err: fmt.Errorf("put: %w", wire.Refuse(code, "why"))})
		if got, gotReason := shipper.Classify(err); got != want || gotReason != reason {
			t.Errorf("%s: got %s %q, want %s %q", code, got, gotReason, want, reason)
		}
	}
	if got, _ := shipper.Classify(&uplink.UnreachableError{Err: wire.Refuse("of a newer receiver", "")}); got != "pause" {
		t.Errorf("an unknown refusal: %s, want pause", got)
	}
}

func TestTheTableOfRefusalsIsComplete(t *testing.T) {
	source, err := os.ReadFile("../wire/problem.go")
	fixture.Must(t, err)
	declared := regexp.MustCompile(`(?m)^\t\w+ +Code = "([a-z-]+)"`).FindAllSubmatch(source, -1)
	if len(declared) < 15 {
		t.Fatalf("found only %d codes in the source", len(declared))
	}
	for _, d := range declared {
		if codes[wire.Code(d[1])] == "" {
			t.Errorf("%s has no verdict here", d[1])
		}
	}
}

func TestEveryErrorHasItsVerdict(t *testing.T) {
	pathError := func(err error) error { return &fs.PathError{Op: "write", Path: "x", Err: err} }
	for _, test := range []struct {
		name   string
		err    error
		want   string
		reason outbox.Reason
	}{
		{"fault", fmt.Errorf("sync x: %w: %w", durable.ErrFault, unix.EIO), "stop", ""},
		{"fault while discarding", errors.Join(unix.ENOSPC, durable.ErrFault), "stop", ""},
		{"cancelled", fmt.Errorf("read: %w", context.Canceled), "stop", ""},
		{"cancelled on the way", &uplink.UnreachableError{Err: context.Canceled}, "stop", ""},
		{"unfit", fmt.Errorf("seal: %w", &archive.UnpackableError{Cause: "no"}), "hold", outbox.Unpackable},
		{"difference", &archive.Difference{Path: "x", What: "differs"}, "hold", outbox.Changed},
		{"being written", archive.ErrChanged, "retry", ""},
		{"leased", fmt.Errorf("seal: %w", fmt.Errorf("open x: %w: %w", durable.ErrLeased, unix.EAGAIN)), "retry", ""},
		{"no space", pathError(unix.ENOSPC), "full", ""},
		{"no quota", pathError(unix.EDQUOT), "full", ""},
		{"no permission", pathError(unix.EACCES), "retry", ""},
		{"exists", pathError(fs.ErrExist), "retry", ""},
		{"no file descriptors", pathError(unix.EMFILE), "retry", ""},
		{"unknown", errors.New("?"), "retry", ""},
		{"refused connection", &uplink.UnreachableError{Err: &net.OpError{Op: "dial", Err: unix.ECONNREFUSED}}, "pause", ""},
		{"no such name", &uplink.UnreachableError{Err: &net.DNSError{Err: "no such host"}}, "pause", ""},
		{"timeout", &uplink.UnreachableError{Err: os.ErrDeadlineExceeded}, "pause", ""},
		{"deadline", &uplink.UnreachableError{Err: context.DeadlineExceeded}, "pause", ""},
		{"broken off", &uplink.UnreachableError{Err: io.ErrUnexpectedEOF}, "pause", ""},
		{"a proxy's answer", &uplink.UnreachableError{Err: &wire.UnexpectedResponseError{Status: 200}}, "pause", ""},
		{"a receipt for something else", &uplink.UnreachableError{Err: wire.Receipt{}.Covers(wire.Upload{})}, "pause", ""},
	} {
		if got, reason := shipper.Classify(test.err); got != test.want || reason != test.reason {
			t.Errorf("%s: got %s %q, want %s %q", test.name, got, reason, test.want, test.reason)
		}
	}
}

func TestRetryAfterIsAFloor(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	busy := wire.Refuse(wire.Busy, "")
	busy.RetryAfter = 10 * time.Minute
	t.Run("of a send", func(t *testing.T) {
		if wait := shipper.NewLink(discard).MarkSuspect(busy, now); wait < busy.RetryAfter {
			t.Errorf("asked again after %v, want at least %v", wait, busy.RetryAfter)
		}
	})
	t.Run("of a ping", func(t *testing.T) {
		l := shipper.NewLink(discard)
		l.MarkSuspect(io.ErrUnexpectedEOF, now)
		if down, wait := l.HandlePing(wire.PingResponse{}, busy, now); !down || wait < busy.RetryAfter {
			t.Errorf("down: %v, asked again after %v, want at least %v", down, wait, busy.RetryAfter)
		}
	})
}
