package activity

import (
	"slices"
	"strings"
	"sync"
	"time"

	"cis490/internal/episode"
)

// Conflict is an episode that was refused because another archive is stored under its name.
type Conflict struct {
	Key         episode.Key
	First, Last time.Time
	Times       int
}

// Conflicts remembers the last refusals for a name that is taken, one per name. Its zero value has none.
// It is safe for concurrent use.
type Conflicts struct {
	mu   sync.Mutex
	list []Conflict // guarded by mu; the last one first
}

// Add remembers a refusal. If there are too many, the oldest one of the host that has most is forgotten, so
// that no host can have those of others forgotten.
func (c *Conflicts) Add(key episode.Key, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := Conflict{key, now, now, 1}
	if i := c.find(key); i >= 0 {
		added.First, added.Times = c.list[i].First, c.list[i].Times+1
		c.list = slices.Delete(c.list, i, i+1)
	}
	c.list = slices.Insert(c.list, 0, added)
	if len(c.list) > maxConflicts {
		c.forgetOne()
	}
}

// forgetOne forgets a refusal. The caller must hold c.mu.
func (c *Conflicts) forgetOne() {
	counts := make(map[episode.Name]int)
	var most episode.Name
	for _, old := range c.list {
		host := old.Key.Host
		if counts[host]++; counts[host] > counts[most] {
			most = host
		}
	}
	for i := len(c.list) - 1; i >= 0; i-- {
		if c.list[i].Key.Host == most {
			c.list = slices.Delete(c.list, i, i+1)
			return
		}
	}
}

// keptBoth is between the name of an episode and a part of its sha256 in the name under which
// 'shipper retry --keep-both' sends it.
const keptBoth = ".conflict-"

// Resolve forgets the refusal of an episode that was sent under its second name, which key has.
func (c *Conflicts) Resolve(key episode.Key) {
	i := strings.LastIndex(string(key.Name), keptBoth)
	if i < 0 {
		return
	}
	key.Name = key.Name[:i]
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.find(key); i >= 0 {
		c.list = slices.Delete(c.list, i, i+1)
	}
}

// find returns the place of an episode, or -1. The caller must hold c.mu.
func (c *Conflicts) find(key episode.Key) int {
	return slices.IndexFunc(c.list, func(old Conflict) bool { return old.Key == key })
}

// List returns the refusals, the last one first.
func (c *Conflicts) List() []Conflict {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}
