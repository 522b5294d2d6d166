package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/store"
)

// custody is a system that uses the disk alone: the durable steps of both daemons by their own
// packages, in one process. Nothing is found, read, packed, hashed or sent. It is what cis490
// would take if everything else cost nothing.
const custody = "custody"

// chain takes episodes through both ends.
type chain struct {
	body []byte // in the place of an archive
	took []samples

	data  *durable.Dir
	store *store.Store
	index *index.Log

	// Of the lab host; nil if only the receiver's steps are taken.
	out *outbox.Outbox
	src *source.Source
}

// custodyClient takes the steps, in a process of its own as the other clients.
func custodyClient(args []string) error {
	f := flag.NewFlagSet(custody, flag.ExitOnError)
	data := f.String("data", "", "the receiver's `folder`")
	src := f.String("src", "", "`folder` of the episodes; empty: the receiver's steps alone")
	shipped := f.String("shipped", "", "`folder` of the retired episodes")
	out := f.String("outbox", "", "`folder` of the packed ones")
	total := f.Int("n", 0, "episodes, where there is no -src")
	size := f.Int("size", 14_000, "`bytes` of an archive")
	width := f.Int("at-once", 32, "episodes on their way at one time; the shipper has 32 hands, and 16 senders")
	if err := f.Parse(args); err != nil {
		return err
	}
	c := &chain{body: make([]byte, *size), took: make([]samples, *width)}
	err := c.receiver(*data)
	if err == nil && *src != "" {
		err = c.host(*src, *shipped, *out)
	}
	if err != nil {
		return err
	}
	names, err := c.names(*total)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := c.all(names); err != nil {
		return err
	}
	return told(time.Since(begun), c.took)
}

func (c *chain) receiver(data string) (err error) {
	if c.data, err = durable.Open(data); err != nil {
		return err
	}
	if c.store, err = store.Open(c.data); err != nil {
		return err
	}
	c.index, err = index.Open(c.data, "index.jsonl", nil)
	return err
}

func (c *chain) host(src, shipped, out string) error {
	var dirs [3]*durable.Dir
	for i, path := range []string{src, shipped, out} {
		var err error
		if dirs[i], err = durable.Create(path); err != nil {
			return err
		}
	}
	c.out = outbox.New(dirs[2])
	c.src = source.New(dirs[0], dirs[1], archive.Limits{})
	return nil
}

func (c *chain) names(total int) ([]episode.Name, error) {
	var names []episode.Name
	if c.src == nil {
		for i := range total {
			names = append(names, episode.Name(fmt.Sprintf("load-%d", i)))
		}
		return names, nil
	}
	for name, err := range c.src.Names() {
		if err != nil {
			return nil, err
		}
		names = append(names, episode.Name(name))
	}
	return names, nil
}

func (c *chain) all(names []episode.Name) error {
	var next atomic.Int64
	errs := make([]error, len(c.took))
	var each sync.WaitGroup
	for i := range c.took {
		each.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(names) {
					return
				}
				begun := time.Now()
				errs[i] = c.one(names[n], hostOf(i))
				c.took[i] = append(c.took[i], float64(time.Since(begun).Microseconds())/1000)
			}
		})
	}
	each.Wait()
	return errors.Join(errs...)
}

// one takes an episode the whole way.
func (c *chain) one(name episode.Name, from string) error {
	if c.src == nil {
		return c.stores(name, from)
	}
	if err := c.seals(name); err != nil {
		return err
	}
	if err := c.stores(name, host); err != nil {
		return err
	}
	return c.retires(name)
}

func (c *chain) seals(name episode.Name) error {
	d, err := c.out.CreateDraft(name)
	if err != nil {
		return err
	}
	if _, err := d.Write(c.body); err != nil {
		return err
	}
	return d.Seal(outbox.Seal{})
}

func (c *chain) stores(name episode.Name, from string) error {
	key := episode.Key{Host: episode.Name(from), Name: name}
	up, err := c.store.CreateUpload(key)
	if err != nil {
		return err
	}
	if _, err := up.Write(c.body); err != nil {
		return err
	}
	d := digest.Digest{1} // not looked up
	now := time.Now()
	if err := up.Commit(d, now); err != nil {
		return err
	}
	row, err := c.index.Append(context.Background(), index.Row{ReceivedAt: now, Key: key, SHA256: d, Size: int64(len(c.body))})
	if err != nil {
		return err
	}
	return up.MarkIndexed(row.ReceivedAt)
}

func (c *chain) retires(name episode.Name) error {
	if err := c.src.Retire(name, &source.Receipt{Size: int64(len(c.body)), ReceivedAt: time.Now()}, source.State{}); err != nil {
		return err
	}
	return c.out.Remove(name)
}

// told prints what a client of the bench measured itself.
func told(wall time.Duration, took []samples) error {
	var every samples
	for _, s := range took {
		every = append(every, s...)
	}
	return json.NewEncoder(os.Stdout).Encode(loadResult{
		Wall: wall.Seconds(), Requests: len(every), P50: every.quantile(0.5), P99: every.quantile(0.99),
	})
}
