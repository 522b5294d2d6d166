package statuspage

import (
	"fmt"
	"strings"
	"time"

	"cis490/internal/activity"
)

// graph is a bar chart of arrivals by day.
type graph struct {
	Width, Height int
	Path          text // of the bars that are not empty
	Base          text // of a line below each day
	Label         text // the same in words
	Max           int64
	First, Last   text // days
	Total         text
}

// Sizes of a day in a graph, in pixels.
const (
	smallDay, smallHeight = 8, 24
	largeDay, largeHeight = 24, 96
)

func newGraph(counts [activity.Days]activity.Count, now time.Time, dayWidth, height int) graph {
	g := graph{Width: dayWidth*activity.Days - dayWidth/4, Height: height}
	for _, c := range counts {
		g.Max = max(g.Max, c.Archives)
	}
	var bars, base, label strings.Builder
	bar := dayWidth - dayWidth/4
	for i, c := range counts {
		fmt.Fprintf(&base, "M%d %dh%d", i*dayWidth, height, bar)
		if c.Archives > 0 {
			high := max(2, int(c.Archives*int64(height-2)/g.Max))
			fmt.Fprintf(&bars, "M%d %dv-%dh%dv%dz", i*dayWidth, height, high, bar, high)
		}
		if i > 0 {
			label.WriteString(", ")
		}
		fmt.Fprintf(&label, "%d", c.Archives)
	}
	g.Path, g.Base = text(bars.String()), text(base.String())
	g.Label = text("Arrivals by day, today last: " + label.String())
	g.First, g.Last = text(now.UTC().AddDate(0, 0, 1-activity.Days).Format("Jan 2")), "today"
	g.Total = describeCount(activity.Sum(counts[:]))
	return g
}

func describeCount(c activity.Count) text {
	return plural(c.Archives, "archive", "archives") + ", " + formatSize(c.Bytes)
}
