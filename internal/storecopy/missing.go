package storecopy

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"sync"

	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
)

// maxMissingBytes is the maximum size of the file.
const maxMissingBytes = 64 << 20

// missingRows are the rows in [datadir.MissingFile], by their keys.
type missingRows struct {
	mu      sync.Mutex // guards the fields below
	rows    map[episode.Key]index.Row
	damaged map[episode.Key]bool // as this run has found; the file does not say so
	changed bool
}

func readMissing(data *durable.Dir) (*missingRows, error) {
	m := &missingRows{rows: make(map[episode.Key]index.Row), damaged: make(map[episode.Key]bool)}
	f, err := data.Open(datadir.MissingFile)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := durable.ReadAtMost(f, datadir.MissingFile, maxMissingBytes)
	if err != nil {
		return nil, err
	}
	for row, err := range index.ReadRows(bytes.NewReader(b)) {
		if err != nil {
			return nil, err
		}
		m.rows[row.Key] = row
	}
	return m, nil
}

// set records that the archive of a row is missing or damaged, or "" if it is there. It reports
// whether the row is not one of those that are known to be missing.
func (m *missingRows) set(row index.Row, finding string) (isNew bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, was := m.rows[row.Key]
	m.damaged[row.Key] = finding == damaged
	switch {
	case finding != "" && (!was || before != row):
		m.rows[row.Key], m.changed, isNew = row, true, true
	case finding == "" && was:
		delete(m.rows, row.Key)
		m.changed = true
	}
	return isNew
}

// save replaces the file, if it has changed.
func (m *missingRows) save(data *durable.Dir) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.changed {
		return nil
	}
	m.changed = false
	if len(m.rows) == 0 {
		return data.Remove(datadir.MissingFile)
	}
	var b []byte
	for _, row := range m.sorted() {
		b = row.Append(b)
	}
	return data.WriteFile(datadir.MissingFile, b, 0o640)
}

// sorted returns the rows in the order in which they arrived. The caller must hold m.mu, or be alone.
func (m *missingRows) sorted() []index.Row {
	var rows []index.Row
	for _, row := range m.rows {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b index.Row) int {
		if c := a.ReceivedAt.Compare(b.ReceivedAt); c != 0 {
			return c
		}
		return bytes.Compare([]byte(a.Key.Host+"/"+a.Key.Name), []byte(b.Key.Host+"/"+b.Key.Name))
	})
	return rows
}
