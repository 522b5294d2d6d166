package store

import (
	"errors"
	"io/fs"

	"cis490/internal/durable"
)

// CountSetAside returns how many copies are in the quarantine of a data
// directory. It may be asked beside a live receiver. What cannot be listed, all of it or
// the folder of a host, goes to skipped, and the others are counted. The error is a
// [durable.ErrFault].
func CountSetAside(data *durable.Dir, skipped func(error)) (int, error) {
	quarantine, err := data.OpenDir("quarantine")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, skip(err, skipped)
	}
	defer quarantine.Close()
	n := 0
	for host, err := range quarantine.Names() {
		if err != nil {
			return n, skip(err, skipped)
		}
		if !host.IsDir() {
			continue
		}
		some, err := countIn(quarantine, host.Name())
		n += some
		if err == nil {
			continue
		}
		if err := skip(err, skipped); err != nil {
			return n, err
		}
	}
	return n, nil
}

// skip passes err on to skipped unless it is a [durable.ErrFault], which it returns.
func skip(err error, skipped func(error)) error {
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	skipped(err)
	return nil
}

func countIn(parent *durable.Dir, name string) (int, error) {
	dir, err := parent.OpenDir(name)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	n := 0
	for _, err := range dir.Names() {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
