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

// Conflicts keeps the latest refusals of uploads whose name is taken, one per name. Its zero value is empty.
// It is safe for concurrent use.
type Conflicts struct {
	mu   sync.Mutex
	list []Conflict // guarded by mu; newest first
}

// Add records a refusal. If the list is full, it drops the oldest refusal of the host that has the most, so
// that no host can push out those of others.
func (c *Conflicts) Add(key episode.Key, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := Conflict{key, now, now, 1}
	if i := c.indexOf(key); i >= 0 {
		added.First, added.Times = c.list[i].First, c.list[i].Times+1
		c.list = slices.Delete(c.list, i, i+1)
	}
	c.list = slices.Insert(c.list, 0, added)
	if len(c.list) > maxConflicts {
		c.dropOldest()
	}
}

// dropOldest drops the oldest refusal of the host that has the most. The caller must hold c.mu.
func (c *Conflicts) dropOldest() {
	counts := make(map[episode.Name]int)
	var most episode.Name
	for _, old := range c.list {
		host := old.Key.Host
		counts[host]++
		if counts[host] > counts[most] {
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

// keepBothInfix separates the name of an episode from a part of its sha256 in the name under which
// 'shipper retry --keep-both' sends it.
const keepBothInfix = ".conflict-"

// Resolve drops the refusal of an episode that has arrived under its second name, which is in key. It
// returns the key under which it was refused, or false if key has no second name.
func (c *Conflicts) Resolve(key episode.Key) (refused episode.Key, ok bool) {
	i := strings.LastIndex(string(key.Name), keepBothInfix)
	if i < 0 {
		return key, false
	}
	key.Name = key.Name[:i]
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.indexOf(key); i >= 0 {
		c.list = slices.Delete(c.list, i, i+1)
	}
	return key, true
}

// indexOf returns the position of an episode in the list, or -1. The caller must hold c.mu.
func (c *Conflicts) indexOf(key episode.Key) int {
	return slices.IndexFunc(c.list, func(old Conflict) bool { return old.Key == key })
}

// List returns the refusals, newest first.
func (c *Conflicts) List() []Conflict {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}
