package admission

import (
	"context"
	"sync"
)

// KeyLocks serializes the operations on one key, an archive's or a host's, and
// leaves those on other keys alone. Its memory is that of the keys in use.
type KeyLocks[K comparable] struct {
	mu    sync.Mutex // guards locks
	locks map[K]*keyLock
}

type keyLock struct {
	held  chan struct{} // has an element while the lock is held
	users int           // holder and waiters; guarded by KeyLocks.mu
}

// Lock waits for the lock of key and returns the function that releases it.
func (k *KeyLocks[K]) Lock(key K) (unlock func()) {
	unlock, _ = k.LockContext(context.Background(), key)
	return unlock
}

// LockContext is Lock that gives up when ctx ends.
func (k *KeyLocks[K]) LockContext(ctx context.Context, key K) (unlock func(), err error) {
	l := k.acquireRef(key)
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; k.releaseRef(key, l) }, nil
	case <-ctx.Done():
		k.releaseRef(key, l)
		return nil, ctx.Err()
	}
}

func (k *KeyLocks[K]) acquireRef(key K) *keyLock {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locks == nil {
		k.locks = make(map[K]*keyLock)
	}
	l := k.locks[key]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	return l
}

func (k *KeyLocks[K]) releaseRef(key K, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l.users--
	if l.users == 0 {
		delete(k.locks, key)
	}
}
