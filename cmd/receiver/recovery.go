package main

import (
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"

	"cis490/internal/cli"
	"cis490/internal/systemd"
)

// Waits of a recovery. The service manager ends the start after recoveryTimeout without
// progress: TimeoutStartSec of the unit is the same.
const (
	recoveryTimeout  = 10 * time.Minute
	recoveryInterval = 15 * time.Second
)

// recoveryProgress reports to the service manager that a recovery makes progress. Only bytes
// read from the disk count, so that a start that hangs is ended.
type recoveryProgress struct {
	log    *slog.Logger
	total  int64
	sentAt time.Time // of the last message
}

// addBytes reports that more bytes were read from the disk.
func (p *recoveryProgress) addBytes(bytes int) {
	p.total += int64(bytes)
	now := time.Now()
	if p.sentAt.IsZero() {
		p.sentAt = now // most recoveries end before they need more time
	}
	if now.Sub(p.sentAt) < recoveryInterval {
		return
	}
	p.sentAt = now
	cli.LogNotifyError(p.log, systemd.ExtendTimeout(recoveryTimeout))
	cli.LogNotifyError(p.log, systemd.NotifyStatus("recovering interrupted uploads, read "+humanize.IBytes(uint64(p.total))))
}
