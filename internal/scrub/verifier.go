package scrub

import (
	"context"
	"errors"
	"sync"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/store"
)

// maxConsecutiveReadErrors is how many archives in a row may be unreadable before the disk
// is considered to be bad, and not the archives.
const maxConsecutiveReadErrors = 3

// ErrDisk says that the disk has failed to return one archive after another.
var ErrDisk = errors.New("repeated read errors: check the disk ('dmesg', 'smartctl -a')")

// Verifier reads archives from the disk and decodes them. An archive is found corrupt or
// unreadable only after two readings. Its methods are safe for concurrent use.
type Verifier struct {
	Store *store.Reader
	// Row returns the row of the index for an archive whose file carries no digest.
	Row func(context.Context, episode.Key) (digest.Digest, bool, error)
	// Lock prevents uploads of a key until unlock is called. Nil: no upload is possible.
	Lock func(episode.Key) (unlock func())
	// Quarantine moves a corrupt archive out of the store. Nil: nothing is moved.
	Quarantine func(episode.Key) error
	Progress   func(int) // unless nil, is called with the number of bytes of each read

	mu         sync.Mutex
	readErrors int // guarded by mu; in a row
}

// Result is the outcome of the verification of one archive.
type Result struct {
	Object      store.Object
	Err         error // nil, or wraps store.ErrCorrupt, store.ErrUnreadable or store.ErrUndecodable
	Transient   error // the error of the first reading, which the second did not confirm
	Quarantined bool

	// ExpandedSize is the number of bytes it decodes to, if that is more than [MaxRatio]
	// times its size. NewExpansion reports that no earlier reading has found that.
	ExpandedSize int64
	NewExpansion bool
}

// VerifyNow is Verify for a host that waits: it is not slowed down, and does not decode
// what is expensive to decode.
func (v *Verifier) VerifyNow(ctx context.Context, key episode.Key) (Result, error) {
	return v.verifyArchive(ctx, key, nil)
}

// verifyArchive reads and decodes the archive under key within b, which may be nil. The error
// wraps [fs.ErrNotExist] if there is none, or if it was replaced meanwhile.
func (v *Verifier) verifyArchive(ctx context.Context, key episode.Key, b *Budget) (Result, error) {
	o, err := v.Store.Stat(key)
	if err != nil {
		v.RecordReadError(err)
		return Result{}, err
	}
	want := o.Digest
	if want.IsZero() {
		if want, _, err = v.Row(ctx, key); err != nil {
			return Result{}, err
		}
	}
	size := o.Size
	var expandedSize int64
	newExpansion := false
	read := func(d *Meter) (store.Object, error) {
		d.Start(ctx, b, size, v.Progress)
		o, err := v.Store.ReadBack(ctx, key, want, d.readingOptions())
		newExpansion = newExpansion || d.remembered
		expandedSize = o.Decoded.Size
		if d.remembered {
			expandedSize = d.decoded
		}
		return o, err
	}
	result, err := v.ReadTwice(key, read)
	result.ExpandedSize, result.NewExpansion = expandedSize, newExpansion
	return result, err
}

// ReadTwice reads an archive until a reading succeeds, or two of them fail. Then it quarantines the
// archive if that is due. read must call [Meter.Start], and return an error of package store if the
// archive fails verification.
func (v *Verifier) ReadTwice(key episode.Key, read func(*Meter) (store.Object, error)) (Result, error) {
	o, first := read(new(Meter))
	if errors.Is(first, store.ErrUndecodable) {
		if !o.Decoded.Digest.IsZero() {
			return Result{Object: o, Err: first}, nil // confirmed by two earlier readings
		}
		// Its host sent these bytes, and they stay: the second reading needs no lock on
		// the key, unless it fails in another way.
		var err error
		o, err = read(&Meter{confirming: true})
		if errors.Is(err, store.ErrUndecodable) {
			return Result{Object: o, Err: err}, nil
		}
		if !store.FailsVerification(err) {
			v.RecordReadError(err)
			return Result{Object: o, Transient: first}, err
		}
	} else if !store.FailsVerification(first) {
		v.RecordReadError(first)
		return Result{Object: o}, first
	}
	return v.confirmFailure(key, first, read)
}

// confirmFailure reads an archive again after a reading that failed with first, and quarantines
// it if that fails too.
func (v *Verifier) confirmFailure(key episode.Key, first error, read func(*Meter) (store.Object, error)) (Result, error) {
	defer v.lockKey(key)()
	o, err := read(&Meter{noWait: v.Lock != nil})
	diskFails := v.RecordReadError(err)
	if !store.FailsVerification(err) {
		return Result{Object: o, Transient: first}, err
	}
	result := Result{Object: o, Err: err}
	if v.Quarantine == nil || diskFails || errors.Is(err, store.ErrUndecodable) {
		return result, nil
	}
	if err := v.Quarantine(key); err != nil {
		return result, err
	}
	result.Quarantined = true
	return result, nil
}

func (v *Verifier) lockKey(key episode.Key) (unlock func()) {
	if v.Lock == nil {
		return func() {}
	}
	return v.Lock(key)
}

// RecordReadError counts consecutive errors that wrap [store.ErrUnreadable]. It reports
// whether err is one of too many of them. Then no archive of this disk may be moved: a disk
// that fails as a whole would empty the store.
func (v *Verifier) RecordReadError(err error) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !errors.Is(err, store.ErrUnreadable) {
		if err == nil {
			v.readErrors = 0
		}
		return false
	}
	v.readErrors++
	return v.readErrors > maxConsecutiveReadErrors
}

// diskError returns [ErrDisk] if there were too many consecutive read errors.
func (v *Verifier) diskError() error {
	if v.IsFailing() {
		return ErrDisk
	}
	return nil
}

// IsFailing reports whether there were too many consecutive read errors: then what is read from is
// considered to be bad, and not the archives.
func (v *Verifier) IsFailing() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.readErrors > maxConsecutiveReadErrors
}
