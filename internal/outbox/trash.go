package outbox

import (
	"context"
	"crypto/rand"
	"errors"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// trashName is the folder, in the outbox, of what is being deleted.
const trashName = ".trash"

// Trash moves a directory out of its folder, durably, to where [Outbox.Empty]
// deletes it. Still, if it is not nil, is asked about the directory once nobody
// finds it under its name any more; if it returns an error the directory goes
// back, and the error is returned. Trash takes the marker away: whatever is left
// after a crash is no finished episode, wherever somebody moves it.
func (o *Outbox) Trash(from *durable.Dir, name string, still func(*durable.Dir) error) error {
	trash, err := o.dir.MakeDir(trashName)
	if err != nil {
		return err
	}
	defer trash.Close()
	to := name + "~" + rand.Text()
	if err := from.Rename(name, trash, to); err != nil {
		return err
	}
	dir, err := trash.OpenDir(to)
	if err != nil {
		return err
	}
	defer dir.Close()
	if still != nil {
		if err := still(dir); err != nil {
			return errors.Join(err, trash.Rename(to, from, name))
		}
	}
	return dir.Remove(episode.Marker)
}

// Empty deletes what is in the trash. It may be called by several processes at
// once.
func (o *Outbox) Empty(ctx context.Context) error {
	exists, err := o.has(trashName)
	if err != nil || !exists {
		return err
	}
	trash, err := o.dir.OpenDir(trashName)
	if err != nil {
		return err
	}
	defer trash.Close()
	return trash.Empty(ctx)
}
