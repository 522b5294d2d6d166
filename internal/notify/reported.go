package notify

import (
	"hash/maphash"
	"sync"

	"cis490/internal/episode"
)

// Limits of [Reported].
const (
	maxReported      = 1000 // names of one host
	maxReportedHosts = 4096
)

// Reported remembers which episodes were reported, so that each is reported once. It forgets no name to make
// space for another: once a host has too many, its further names are not reported, so that no host can cause
// events without end. A restart forgets all names. Its zero value is empty. It is safe for concurrent use.
type Reported struct {
	mu   sync.Mutex
	seed maphash.Seed                         // so that no host can choose names with the same hash
	all  map[episode.Name]map[uint64]struct{} // guarded by mu; hashes of names, which are shorter
}

// Add adds an episode, and reports whether the caller must report it.
func (r *Reported) Add(key episode.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.seed, r.all = maphash.MakeSeed(), make(map[episode.Name]map[uint64]struct{})
	}
	names, known := r.all[key.Host]
	if !known {
		if len(r.all) >= maxReportedHosts {
			return false
		}
		names = make(map[uint64]struct{})
		r.all[key.Host] = names
	}
	hash := maphash.String(r.seed, string(key.Name))
	if _, known := names[hash]; known || len(names) >= maxReported {
		return false
	}
	names[hash] = struct{}{}
	return true
}

// Remove forgets an episode.
func (r *Reported) Remove(key episode.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	names, known := r.all[key.Host]
	if !known {
		return
	}
	delete(names, maphash.String(r.seed, string(key.Name)))
	if len(names) == 0 {
		delete(r.all, key.Host)
	}
}
