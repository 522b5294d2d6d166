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

	mu   sync.Mutex
	lost int // guarded by mu; archives in a row that the disk did not give
}

// proof is what came of reading one archive back.
type proof struct {
	store.Object
	bad   error // store.ErrDamaged, store.ErrUnreadable or store.ErrUnfit
	once  error // the first look went wrong, the second did not
	aside bool  // it was moved to quarantine
}

// prove reads the archive under key, no faster than pace says, if it says something,
// and decodes it. The error wraps [fs.ErrNotExist] if there is none, or if it was put
// in another's place meanwhile.
func (p *prover) prove(ctx context.Context, key episode.Key, pace *pacer) (proof, error) {
	o, err := p.store.Stat(key)
	if err != nil {
		return proof{}, err
	}
	want := o.Digest
	if want.IsZero() {
		if want, _, err = p.row(ctx, key); err != nil {
			return proof{}, err
		}
	}
	read := func(pace *pacer) (store.Object, error) {
		return p.store.ReadBack(ctx, key, want, newDecoding(ctx, pace).reading())
	}
	o, first := read(pace)
	if errors.Is(first, store.ErrUnfit) {
		// It is what its host has sent, and stays: no need to keep uploads of its key
		// away, nor to hurry. Unless the next look says something else.
		o, err = read(pace)
		if errors.Is(err, store.ErrUnfit) {
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
	o, err = read(nil)
	gone := p.saw(err)
	if !isBad(err) {
		return proof{Object: o, once: first}, err
	}
	found := proof{Object: o, bad: err}
	if p.setAside == nil || gone || errors.Is(err, store.ErrUnfit) {
		return found, nil
	}
	if err := p.setAside(key); err != nil {
		return found, err
	}
	found.aside = true
	return found, nil
}

func isBad(err error) bool {
	return errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrUnreadable) || errors.Is(err, store.ErrUnfit)
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
		return found, err
	case errors.Is(found.bad, store.ErrUnfit):
		log.Error("a stored archive is what its host has sent, and cannot be decoded: keep the episode on its host", "err", found.bad)
	case found.aside:
		log.Error("set aside a stored archive that is not what it was; 'shipper verify --heal' on its host sends it again", "err", found.bad)
	case found.bad != nil:
		log.Error("the disk does not give one archive after the other: nothing more is set aside; look at the disk", "err", found.bad)
	case found.once != nil:
		log.Warn("a stored archive was read wrongly once, and right the second time", "err", found.once)
	}
	return found, err
}
