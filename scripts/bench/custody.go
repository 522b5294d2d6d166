package main

import (
	"context"
	"flag"
	"fmt"
	"os"
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

// custody is what stands for the disk among the systems: the durable steps of
// both daemons by their own packages, in one process. Nothing is found, read,
// packed, hashed or sent. It is what is left of ours where all else costs nothing.
const custody = "custody"

// chain is the way of episodes through both ends.
type chain struct {
	body []byte // in the place of an archive

	data  *durable.Dir
	store *store.Store
	index *index.Log

	// Of the lab host; nil if only the receiver's steps are taken.
	out *outbox.Outbox
	src *source.Source
}

// custodyClient takes the steps: a process of its own, as those of the others are.
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
	defer durable.RaiseGOMAXPROCS()() // as both daemons do
	c := &chain{body: make([]byte, *size)}
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
	return timeEach(os.Stdout, *width, len(names), func(worker, i int) error { return c.one(names[i], hostOf(worker)) })
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
	d := digest.Digest{1} // nobody looks
	now := time.Now()
	if err := up.Commit(d, now); err != nil {
		return err
	}
	row, err := c.index.Append(context.Background(), index.Row{ReceivedAt: now, Host: key.Host, Episode: key.Name, SHA256: d, Size: int64(len(c.body))})
	if err != nil {
		return err
	}
	return up.MarkIndexed(d, row.ReceivedAt)
}

func (c *chain) retires(name episode.Name) error {
	if err := c.src.Retire(name, &source.Receipt{Size: int64(len(c.body)), ReceivedAt: time.Now()}, source.State{}); err != nil {
		return err
	}
	return c.out.Remove(name)
}
