package scrub

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

// positionFile is where the receiver saves the state of its scrub.
const positionFile = "scrub.json"

// maxPositionBytes is the maximum size of scrub.json.
const maxPositionBytes = 64 << 10

// savedProgress is the content of scrub.json. Scrubs before 2026-11-29 read the hosts in
// the order of their names, from the archive in host_id and episode_id on. These members
// are no longer written: such a program begins with the first host, and skips what was
// verified by the attributes of the files.
type savedProgress struct {
	Progress
	Last    *hostCursor  `json:"last,omitempty"` // what was read last; nil in an older file
	Cursors []hostCursor `json:"hosts,omitempty"`
}

// LoadProgress returns the state of the background scrub of a data directory. If its file
// cannot be read the next pass begins with the first host.
func LoadProgress(data *durable.Dir) (Progress, error) {
	f, err := data.Open(positionFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Progress{}, nil
	}
	if err != nil {
		return Progress{}, err
	}
	defer f.Close()
	var p savedProgress
	if err := json.NewDecoder(io.LimitReader(f, maxPositionBytes)).Decode(&p); err != nil {
		return Progress{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if p.Started.After(time.Now()) { // the clock was wrong; the next pass would wait for that day
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
	err = data.WriteFile(positionFile, append(b, '\n'), 0o640)
	if durable.IsFull(err) {
		return nil // after a restart the pass begins with the first host
	}
	return err
}

// cursorOf returns the position in a host's archives before the last restart. A scrub before
// 2026-11-29 has read the hosts whose names come before its own position.
func (p *Progress) cursorOf(host episode.Name, saved map[episode.Name]hostCursor) hostCursor {
	if !p.byName {
		return saved[host]
	}
	switch strings.Compare(string(host), string(p.Host)) {
	case -1:
		return hostCursor{Host: host, Done: true}
	case 0:
		return hostCursor{Host: host, After: p.Episode}
	}
	return hostCursor{Host: host}
}
