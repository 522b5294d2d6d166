package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"cis490/internal/durable"
)

// caDir is a directory of CAs.
type caDir struct {
	*pemDir
	heldLock *durable.Lock // nil unless locked
}

// openCADir opens a directory without a check of what is there.
func openCADir(path string) (*caDir, error) {
	f, err := openPEMDir(path)
	if err != nil {
		return nil, err
	}
	return &caDir{pemDir: f}, nil
}

// openCA opens the directory that [InitCA] created.
func openCA(path string) (*caDir, error) {
	f, err := openCADir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (want the directory that receiver pki init made)", err)
	}
	if err != nil {
		return nil, err
	}
	incomplete, err := f.exists(incompleteFile)
	if err == nil && incomplete {
		err = fmt.Errorf("%s is not complete: 'receiver setup' or 'receiver pki init' was interrupted; run it again", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lockName is the lock of a CA directory. Older programs lock the directory itself.
const lockName = ".pki.lock"

// lock keeps other processes from changing the directory until it is closed. Of two concurrent
// revocations, one would be lost.
func (f *caDir) lock() error {
	held, err := f.Lock(lockName, fmt.Sprintf("pid %d (receiver pki)", os.Getpid()))
	if errors.Is(err, fs.ErrPermission) { // without its path: no mode of a CA's files should be loosened
		return fmt.Errorf("the CAs in %s belong to another user: run this command as that user, such as root", f.path)
	}
	if locked, ok := errors.AsType[*durable.LockedError](err); ok {
		return fmt.Errorf("%s is in use by another pki command: %s; try again when that is done", f.path, locked)
	}
	if err != nil {
		return err
	}
	f.heldLock = held
	if err := f.CheckPath(); err != nil { // a rotation was finished while this waited
		return fmt.Errorf("%w; try again", err)
	}
	f.TryFlock()
	return nil
}

// Close releases the lock, if it is held, and closes the directory.
func (f *caDir) Close() error {
	if f.heldLock == nil {
		return f.pemDir.Close()
	}
	return errors.Join(f.heldLock.Unlock(), f.pemDir.Close())
}
