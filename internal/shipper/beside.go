package shipper

import (
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/outbox"
)

// besideDigits is how much of a sha256 tells two copies of one name apart.
const besideDigits = 8

// BesideName is the name under which a copy is sent that the receiver refused
// because it has another one of its name.
func BesideName(name episode.Name, h outbox.Hold) (episode.Name, error) {
	if h.Digest == nil {
		return "", fmt.Errorf("the hold of %s does not say which bytes were refused: retry it first", name)
	}
	beside, err := episode.ParseName(string(name) + ".conflict-" + h.Digest.String()[:besideDigits])
	if err != nil {
		return "", fmt.Errorf("%s is too long a name to be sent beside the other: rename the episode's folder", name)
	}
	return beside, nil
}

// Beside lets an episode that is held for a conflict go beside the archive that
// the receiver has: under a name of its own, which it returns, and by the
// ordinary way, on which it is packed anew for the new name. Neither copy
// replaces the other. It works beside a running shipper, which does not touch
// what is held.
//
// A power cut leaves the episode under one of its names, and the hold until all
// is done: Beside may be called again, and ends what it began.
func Beside(c Config, name episode.Name) (episode.Name, error) {
	src, out, err := folders(c, durable.Open)
	if err != nil {
		return "", err
	}
	defer src.Close()
	defer out.Close()
	hold, err := out.Held(name)
	if err != nil {
		return "", err
	}
	if hold.Reason != outbox.Conflict {
		return "", fmt.Errorf("%s is held for another reason (%s) than a conflict", name, hold.Reason)
	}
	beside, err := BesideName(name, hold)
	if err != nil {
		return "", err
	}
	episodes, shipped := src.Dirs()
	// The episode is what custody is about: the packed copy bears the old name
	// inside, and goes only once the episode has the new one.
	err = episodes.Rename(string(name), episodes, string(beside))
	if errors.Is(err, fs.ErrNotExist) && (there(episodes, beside) || there(shipped, beside)) {
		err = nil // an earlier call was interrupted
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s is not in %s any more: what is left of it is %s", name, c.EpisodesDir, out.Dir().Path(string(name)+".tar.zst"))
	case errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("there is an episode %s already: let it be shipped first", beside)
	case err != nil:
		return "", err
	}
	if err := out.Remove(name); err != nil {
		return "", err
	}
	return beside, out.Release(name)
}

func there(dir *durable.Dir, name episode.Name) bool {
	_, err := dir.Lstat(string(name))
	return err == nil
}
