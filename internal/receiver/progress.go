package receiver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// scrubFile is where the daemon keeps how far its scrub has come.
const scrubFile = "scrub.json"

// maxProgress bounds what is read of scrub.json.
const maxProgress = 64 << 10

// savedProgress is scrub.json. Scrubs of before 2026-11-29 read the hosts in the order of
// their names, from the archive in host_id and episode_id on. They are not written any
// more: such a program begins with the first host, and passes over what was read by the
// times noted at the files.
type savedProgress struct {
	Progress
	Last    *hostCursor  `json:"last,omitempty"` // what was read last; nil in an older file
	Cursors []hostCursor `json:"hosts,omitempty"`
}

// loadProgress returns how far the background scrub of a data directory has
// come. Of a file that cannot be read nothing is known, and the walk begins again.
func loadProgress(data *durable.Dir) (Progress, error) {
	f, err := data.Open(scrubFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Progress{}, nil
	}
	if err != nil {
		return Progress{}, err
	}
	defer f.Close()
	var p savedProgress
	if err := json.NewDecoder(io.LimitReader(f, maxProgress)).Decode(&p); err != nil {
		return Progress{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if now := time.Now(); p.Started.After(now) { // a clock that was wrong; it would wait for that day
		return Progress{}, nil
	}
	if !p.Decoded {
		return Progress{}, nil
	}
	if p.Last != nil {
		p.Host, p.Episode = p.Last.Host, p.Last.After
	}
	names := []episode.Name{p.Host, p.Episode}
	for _, c := range p.Cursors {
		names = append(names, c.Host, c.After)
	}
	for _, name := range names {
		if _, err := episode.ParseName(string(name)); name != "" && err != nil {
			return Progress{}, fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}
	p.cursors = p.Cursors
	p.byName = p.Last == nil && p.Host != ""
	return p.Progress, nil
}

func saveProgress(data *durable.Dir, p Progress) error {
	s := savedProgress{Progress: p, Last: &hostCursor{Host: p.Host, After: p.Episode}, Cursors: p.cursors}
	s.Host, s.Episode = "", ""
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	err = data.WriteFile(scrubFile, append(b, '\n'), 0o640)
	if durable.IsFull(err) {
		return nil // the walk begins again after the next start; that is all
	}
	return err
}

// cursor returns how far a host was read before the last restart. A scrub of before
// 2026-11-29 has read the hosts whose names come before the one at which it was.
func (p *Progress) cursor(host episode.Name, known map[episode.Name]hostCursor) hostCursor {
	if !p.byName {
		return known[host]
	}
	switch strings.Compare(string(host), string(p.Host)) {
	case -1:
		return hostCursor{Host: host, Done: true}
	case 0:
		return hostCursor{Host: host, After: p.Episode}
	}
	return hostCursor{Host: host}
}
