package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// book keeps the raw rows of each part, so that one part can be repeated and the tables be
// written again without the others.
type book map[string]section

// section is the rows of one part, and the conditions of their measurement.
type section struct {
	When   time.Time `json:"when"`
	Commit string    `json:"commit"`
	Runs   int       `json:"runs"`
	Scale  float64   `json:"scale"`
	Disk   string    `json:"disk"`
	Rows   []row     `json:"rows"`
}

func newSection(o options, rows []row) section {
	return section{time.Now().UTC().Truncate(time.Second), commit(), o.runs, o.scale, o.disk(), rows}
}

// book keeps partial runs apart from full ones: they must not get into the page.
func (o options) book(name string) string {
	if !o.full() {
		name = strings.TrimRight(fmt.Sprintf("%s-scale-%g-%s", name, o.scale, strings.ReplaceAll(o.only, ",", "-")), "-")
	}
	return filepath.Join(o.dir, name+".json")
}

// readBook returns what earlier runs have measured.
func readBook(o options, name string) (book, error) {
	b := book{}
	text, err := os.ReadFile(o.book(name))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	return b, json.Unmarshal(text, &b)
}

func (b book) write(o options, name string) error {
	text, err := json.MarshalIndent(b, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(o.book(name), append(text, '\n'), 0o644)
}

// samples are measurements of one thing.
type samples []float64

// quantile returns the smallest value that this share of the values does not exceed.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, max(0, int(math.Ceil(q*float64(len(sorted))))-1))]
}

// median is the usual one: of an even number of values, the mean of the middle two.
func (s samples) median() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// tooBusy is how many foreign cores spoil a row.
const tooBusy = 0.5

// of returns the rows of a system, without those that other load has spoiled if two others
// remain.
func (s section) of(system string) (rows []row, spoiled bool) {
	var clean []row
	for _, r := range s.Rows {
		if r.System != system {
			continue
		}
		rows = append(rows, r)
		if r.Foreign <= tooBusy {
			clean = append(clean, r)
		}
	}
	if len(clean) >= 2 || len(clean) == len(rows) {
		return clean, false
	}
	return rows, true
}

// median returns that of one figure of a system.
func (s section) median(system string, figure func(row) float64) float64 {
	rows, _ := s.of(system)
	return each(rows, figure).median()
}

// ratio returns the median of a to b within the rounds: what the machine did in
// a round, it did to both. Rounds of which a row is spoiled are left out if two
// others remain.
func (s section) ratio(a, b string, figure func(row) float64) float64 {
	var all, clean samples
	for _, ra := range s.Rows {
		for _, rb := range s.Rows {
			if ra.System != a || rb.System != b || ra.Round != rb.Round || figure(rb) == 0 {
				continue
			}
			q := figure(ra) / figure(rb)
			all = append(all, q)
			if max(ra.Foreign, rb.Foreign) <= tooBusy {
				clean = append(clean, q)
			}
		}
	}
	if len(clean) >= 2 {
		return clean.median()
	}
	return all.median()
}

func each(rows []row, figure func(row) float64) samples {
	var s samples
	for _, r := range rows {
		s = append(s, figure(r))
	}
	return s
}

// names returns the systems of a section in the order in which they ran.
func (s section) names() []string {
	var names []string
	for _, r := range s.Rows {
		if !slices.Contains(names, r.System) {
			names = append(names, r.System)
		}
	}
	return names
}
