package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"cis490/internal/batchlog"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/receiver"
	"cis490/internal/systemd"
)

// trustError gives an error of the certificates, the key or the lists its exit code and adds
// what to do. The configuration names all of them.
func trustError(err error, cfg receiver.Config, file string) error {
	if machineError(err) {
		return cli.UsageError(err)
	}
	if errors.Is(err, fs.ErrNotExist) && aboutPKI(err, cfg) {
		return cli.UsageError(fmt.Errorf("%w; create it with 'receiver pki init', or name another in %s", err, file))
	}
	return cli.UsageError(fmt.Errorf("%w; fix that or change %s", err, file))
}

// startError gives an error of the receiver's start its exit code and adds what to do. The
// configuration is the cause only of what it names, and of what the receiver's user may not
// open: another data_dir may be meant.
func startError(ctx context.Context, err error, file string) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // SIGTERM; the next start recovers
	}
	if _, locked := errors.AsType[*durable.LockedError](err); locked {
		return err
	}
	if errors.Is(err, syscall.EROFS) {
		return cli.StartError(err)
	}
	if _, moved := errors.AsType[*datadir.MovedError](err); moved {
		return cli.UsageError(err)
	}
	if _, moved := errors.AsType[*batchlog.MovedError](err); moved {
		return cli.UsageError(err)
	}
	if machineError(err) || errors.Is(err, datadir.ErrDisabledList) || errors.Is(err, datadir.ErrStoreFile) {
		return cli.UsageError(err) // err says what to do
	}
	if _, named := errors.AsType[*receiver.ConfigError](err); named || errors.Is(err, fs.ErrPermission) {
		return cli.UsageError(fmt.Errorf("%w; fix that or change %s", err, file))
	}
	return err
}

// machineError reports whether err is caused by the machine and not by the configuration.
func machineError(err error) bool {
	return errors.Is(err, durable.ErrFault) || errors.Is(err, syscall.EIO) || durable.IsShortage(err)
}

// aboutPKI reports whether err is about a file that "receiver pki" makes.
func aboutPKI(err error, cfg receiver.Config) bool {
	at, ok := errors.AsType[*fs.PathError](err)
	return ok && slices.Contains([]config.Path{
		cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.TLS.ClientCAFile, cfg.TLS.CRLFile,
	}, config.Path(at.Path))
}

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
