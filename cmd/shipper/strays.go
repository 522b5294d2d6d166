package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"cis490/internal/cli"
	"cis490/internal/shipper"
)

// maxShown is the maximum number of entries that never ship in a table.
const maxShown = 10

// printOldest shows the unfinished episode that has not changed for longest.
func printOldest(to io.Writer, st shipper.Status, now time.Time) error {
	if st.Oldest == nil {
		return nil
	}
	_, err := fmt.Fprintf(to, "\n%s\n  unfinished; a name in it last changed %s\n",
		asciiText(st.Oldest.Entry), cli.FormatAgo(st.Oldest.ChangedAt, now))
	return err
}

// printStrays shows the entries of the episodes directory that never ship.
func printStrays(to io.Writer, st shipper.Status) error {
	var b strings.Builder
	for i, s := range st.Strays {
		if i == maxShown {
			break
		}
		fmt.Fprintf(&b, "\n%s\n%s", asciiText(s.Entry), wrapText(s.Reason))
	}
	if more := st.StraysTotal - maxShown; more > 0 {
		fmt.Fprintf(&b, "\nand %d more that never ship: see --json\n", more)
	}
	_, err := io.WriteString(to, b.String())
	return err
}
