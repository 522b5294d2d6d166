package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/receiver"
)

// startError gives an error of the receiver's start its exit code and says what
// to do. What remains after the errors that have an answer of their own is
// about a file or a folder that the configuration names, and it or the
// configuration must change.
func startError(ctx context.Context, err error, cfg receiver.Config, file string) error {
	_, locked := errors.AsType[*durable.LockedError](err)
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil // told to stop; the next start recovers
	case locked, errors.Is(err, durable.ErrFault), passing(err):
		return err
	case errors.Is(err, receiver.ErrDisabledList):
		return cli.Wrong(err) // it says what to do
	case errors.Is(err, fs.ErrNotExist) && aboutPKI(err, cfg):
		return cli.Wrong(fmt.Errorf("%w; make it with 'receiver pki init', or name another in %s", err, file))
	}
	return cli.Wrong(fmt.Errorf("%w; mend that, or change %s", err, file))
}

// passing reports whether err may be gone at the next start, without anybody
// touching the configuration.
func passing(err error) bool {
	return slices.ContainsFunc([]error{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
	}, func(e error) bool { return errors.Is(err, e) })
}

// aboutPKI reports whether err is about a file that "receiver pki" makes.
func aboutPKI(err error, cfg receiver.Config) bool {
	at, ok := errors.AsType[*fs.PathError](err)
	return ok && slices.Contains([]config.Path{
		cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.TLS.ClientCAFile, cfg.TLS.CRLFile,
	}, config.Path(at.Path))
}
