package receiver

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/store"
)

// lostDisk is how many archives in a row the disk may fail to give before it is
// the disk that is believed to be bad, and not the archives.
const lostDisk = 3

// prover reads archives back from the disk and says which have not kept their
// bytes. What reads wrong is read twice before that is believed.
type prover struct {
	store *store.Reader
	// row returns what the index says of an archive that carries no digest.
	row func(context.Context, episode.Key) (digest.Digest, bool, error)
	// lock keeps uploads of a key away; what it returns gives the key up.
	lock func(episode.Key) func()
	// setAside moves a copy that is not what it was out of the store. It is nil
	// where nothing may be moved.
	setAside func(episode.Key) error
	progress func(int) // unless nil, is told how many bytes each read gave

	mu   sync.Mutex
	lost int // guarded by mu; archives in a row that the disk did not give
}

// proof is what came of reading one archive back.
type proof struct {
	store.Object
	bad   error // store.ErrDamaged, store.ErrUnreadable or store.ErrUndecodable
	once  error // the first look went wrong, the second did not
	aside bool  // it was moved to quarantine

	// expands is to how many bytes it decodes, if that is more than [archive.MaxRatio]
	// times its size; expandsNew says that no earlier reading has noted it.
	expands    int64
	expandsNew bool
}

// prove reads the archive under key, no faster than pace says, if it says something,
// and decodes it. Without a pace a host waits for it, and what is expensive to decode is
// left to the scrub. The error wraps [fs.ErrNotExist] if there is none, or if it was put
// in another's place meanwhile.
func (p *prover) prove(ctx context.Context, key episode.Key, pace *pacer) (proof, error) {
	o, err := p.store.Stat(key)
	if err != nil {
		p.saw(err)
		return proof{}, err
	}
	want := o.Digest
	if want.IsZero() {
		if want, _, err = p.row(ctx, key); err != nil {
			return proof{}, err
		}
	}
	size := o.Size
	var expands int64
	expandsNew := false
	read := func(d decoding) (store.Object, error) {
		d.ctx, d.pace, d.size, d.progress = ctx, pace, size, p.progress
		o, err := p.store.ReadBack(ctx, key, want, d.reading())
		expandsNew = expandsNew || d.remembered
		if expands = o.Decoded.Size; d.remembered {
			expands = d.out
		}
		return o, err
	}
	found, err := p.look(key, read)
	found.expands, found.expandsNew = expands, expandsNew
	return found, err
}

// look reads an archive until two readings agree on what is wrong with it, or one finds
// nothing.
func (p *prover) look(key episode.Key, read func(decoding) (store.Object, error)) (proof, error) {
	o, first := read(decoding{})
	if errors.Is(first, store.ErrUndecodable) {
		if !o.Decoded.Digest.IsZero() {
			return proof{Object: o, bad: first}, nil // two readings agreed on it before
		}
		// It is what its host has sent, and stays: no need to keep uploads of its key
		// away, nor to hurry. Unless the next look says something else.
		var err error
		o, err = read(decoding{sure: true})
		if errors.Is(err, store.ErrUndecodable) {
			return proof{Object: o, bad: err}, nil
		}
		if !isBad(err) {
			p.saw(err)
			return proof{Object: o, once: first}, err
		}
	} else if !isBad(first) {
		p.saw(first)
		return proof{Object: o}, first
	}
	defer p.lock(key)()
	o, err := read(decoding{hurry: true})
	gone := p.saw(err)
	if !isBad(err) {
		return proof{Object: o, once: first}, err
	}
	found := proof{Object: o, bad: err}
	if p.setAside == nil || gone || errors.Is(err, store.ErrUndecodable) {
		return found, nil
	}
	if err := p.setAside(key); err != nil {
		return found, err
	}
	found.aside = true
	return found, nil
}

func isBad(err error) bool {
	return errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrUnreadable) || errors.Is(err, store.ErrUndecodable)
}

// saw counts what the disk did not give, and reports whether nothing of this
// disk is to be moved for not being readable: a disk that fails as a whole
// would empty the store.
func (p *prover) saw(err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(err, store.ErrUnreadable) {
		if err == nil {
			p.lost = 0
		}
		return false
	}
	p.lost++
	return p.lost > lostDisk
}

// failing reports whether the disk has failed too often in a row.
func (p *prover) failing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost > lostDisk
}

// prover returns the one of a live receiver.
func (r *Receiver) newProver() *prover {
	return &prover{
		store:    r.store.Reader,
		lock:     r.keys.Lock,
		setAside: r.store.SetAside,
		row: func(ctx context.Context, key episode.Key) (digest.Digest, bool, error) {
			row, found, err := r.index.Find(ctx, key)
			return row.SHA256, found, err
		},
	}
}

// readBack is [prover.prove] for a live receiver: what was found is logged.
func (r *Receiver) readBack(ctx context.Context, key episode.Key, pace *pacer) (proof, error) {
	found, err := r.prover.prove(ctx, key, pace)
	log := r.log.With("host", key.Host, "episode", key.Name)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
	case found.bad != nil:
		finding := ""
		if errors.Is(found.bad, store.ErrUndecodable) {
			finding = "undecodable"
		}
		logBad(log, finding, found.aside, found.bad)
	case found.once != nil:
		logTransient(log, found.once)
	}
	return found, err
}
