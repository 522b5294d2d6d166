package statuspage

import (
	"github.com/dustin/go-humanize/english"

	"cis490/internal/fleet"
)

// bucketFacts returns what is in the bucket, and nothing with a store on a disk. The space of the object
// store is known only to it.
func bucketFacts(s State) []fact {
	b := s.Bucket
	if b == nil {
		return nil
	}
	answer := fact{Name: "Object store", Mark: severityMark(fleet.OK), Text: "answers"}
	if b.Error != "" {
		answer = fact{Name: "Object store", Mark: severityMark(fleet.Critical), Text: clean(b.Error)}
	}
	archives := fact{Name: "Archives", Text: "unknown"}
	if b.Archives != nil {
		archives.Text, archives.More = plural(*b.Archives, "archive", "archives"), "by the copy of the index here"
	}
	if b.Archives != nil && b.ArchiveBytes != nil {
		archives.Text += textf(", %s", formatSize(*b.ArchiveBytes))
	}
	rows := fact{Name: "Last rows", Text: "unknown"}
	switch {
	case b.LastBatchAt != nil:
		rows.Text, rows.At = "written", momentOf(*b.LastBatchAt, s.Now)
	case b.Behind != nil:
		rows.Text = "none yet"
	}
	if b.Behind != nil && *b.Behind > 0 {
		rows.More = textf("the copy here lacks %d %s", *b.Behind, english.PluralWord(int(*b.Behind), "batch", ""))
	}
	unfinished := fact{Name: "Unfinished", Text: "unknown"}
	if b.Unfinished != nil {
		unfinished.Text = plural(int64(*b.Unfinished), "upload", "uploads")
	}
	return []fact{answer, archives, rows, unfinished}
}
