package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"cis490/internal/cli"
	"cis490/internal/shipper"
)

// maxShown is how many entries that never ship are shown to a person.
const maxShown = 10

// printOldest names the folder that waits longest for its marker.
func printOldest(to io.Writer, st shipper.Status, now time.Time) error {
	if st.Oldest == nil {
		return nil
	}
	_, err := fmt.Fprintf(to, "\n%s\n  unfinished; a name in it last changed %s\n",
		ascii(st.Oldest.Entry), cli.Ago(st.Oldest.ChangedAt, now))
	return err
}

// printStrays shows what is in the episodes folder and never ships.
func printStrays(to io.Writer, st shipper.Status) error {
	var b strings.Builder
	for i, s := range st.Strays {
		if i == maxShown {
			break
		}
		fmt.Fprintf(&b, "\n%s\n%s", ascii(s.Entry), wrapText(s.Why))
	}
	if more := st.StraysTotal - maxShown; more > 0 {
		fmt.Fprintf(&b, "\nand %d more that never ship: see --json\n", more)
	}
	_, err := io.WriteString(to, b.String())
	return err
}
