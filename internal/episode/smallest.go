package episode

import "slices"

// SmallestNames keeps the smallest names that are added, to list many names in pages of bounded
// memory.
type SmallestNames struct {
	After Name // names up to this one are skipped
	Limit int  // the maximum number of names

	names []Name
	more  bool
}

// Add adds a name. It may be added twice.
func (s *SmallestNames) Add(name Name) {
	if name <= s.After {
		return
	}
	s.names = append(s.names, name)
	if len(s.names) >= 4*s.Limit {
		s.truncate()
	}
}

func (s *SmallestNames) truncate() {
	slices.Sort(s.names)
	s.names = slices.Compact(s.names)
	if len(s.names) > s.Limit {
		s.names, s.more = s.names[:s.Limit], true
	}
}

// Sorted returns the names, and whether no larger ones were added.
func (s *SmallestNames) Sorted() (names []Name, isLast bool) {
	s.truncate()
	return s.names, !s.more
}
