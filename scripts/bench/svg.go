package main

import (
	"bytes"
	"fmt"
	"html/template"
	"math"
)

// chart is a graph with logarithmic axes: what grows by factors shows its law
// as a slope.
type chart struct {
	title  string
	x, y   string // what the axes mean
	series []series
}

type series struct {
	name   string
	points [][2]float64
	dashed bool // a guide for the eye, not a measurement
}

// axis maps values to places by their logarithm.
type axis struct {
	low, high float64 // powers of ten
	from, to  float64 // in the picture
}

// around returns the axis that holds the values. They must be above zero.
func around(values samples, from, to float64) axis {
	if len(values) == 0 {
		return axis{0, 1, from, to}
	}
	a := axis{math.Floor(math.Log10(values.quantile(0))), math.Ceil(math.Log10(values.quantile(1))), from, to}
	if a.high == a.low {
		a.high++
	}
	return a
}

func (a axis) at(v float64) place {
	return place(a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from))
}

// place is one in the picture.
type place float64

func (p place) String() string { return fmt.Sprintf("%.1f", float64(p)) }

// mark is a point of a line, or a tick of an axis.
type mark struct {
	X, Y  place
	Label string
	Minor bool
}

// ticks are the powers of ten, and two and five of them where there is room.
func (a axis) ticks() []mark {
	var all []mark
	for e := a.low; e <= a.high; e++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, e); m == 1 || e < a.high && a.high-a.low <= 3 {
				all = append(all, mark{X: a.at(v), Y: a.at(v), Label: si(v), Minor: m > 1})
			}
		}
	}
	return all
}

// picture has a line a series. Those that are guides are grey, and the others have one of
// three colours that a colour-blind reader tells apart.
const picture = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 440" font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">
<rect width="720" height="440" fill="#fff"/>
<text x="80" y="26" font-size="16" font-weight="bold">{{.Title}}</text>
{{range .XTicks}}<line x1="{{.X}}" y1="46" x2="{{.X}}" y2="348" stroke="{{if .Minor}}#e6e6e6{{else}}#bbb{{end}}"/>
<text x="{{.X}}" y="366" text-anchor="middle" fill="#444">{{.Label}}</text>
{{end}}{{range .YTicks}}<line x1="80" y1="{{.Y}}" x2="700" y2="{{.Y}}" stroke="{{if .Minor}}#e6e6e6{{else}}#bbb{{end}}"/>
<text x="72" y="{{.Y}}" dy="4" text-anchor="end" fill="#444">{{.Label}}</text>
{{end}}<text x="390" y="388" text-anchor="middle">{{.XName}}</text>
<text transform="translate(20 197) rotate(-90)" text-anchor="middle">{{.YName}}</text>
{{range .Lines}}<g stroke="{{.Colour}}" fill="none"{{if .Dashed}} stroke-dasharray="5 5" stroke-opacity="0.6"{{end}}>
<polyline stroke-width="2" points="{{range .Points}}{{.X}},{{.Y}} {{end}}"/>
<path d="M{{.Left}} 422h24" stroke-width="3"/></g>
{{if not .Dashed}}{{$l := .}}{{range .Points}}<circle cx="{{.X}}" cy="{{.Y}}" r="4" fill="{{$l.Colour}}"><title>{{.Label}}</title></circle>
{{end}}{{end}}<text x="{{.Left}}" y="426" dx="30">{{.Name}}</text>
{{end}}</svg>
`

func (c chart) svg() ([]byte, error) {
	var xs, ys samples
	for _, s := range c.series {
		for _, p := range s.points {
			xs, ys = append(xs, p[0]), append(ys, p[1])
		}
	}
	x, y := around(xs, 80, 700), around(ys, 348, 46)
	type line struct {
		Name, Colour string
		Dashed       bool
		Left         place // of the legend
		Points       []mark
	}
	var lines []line
	left := place(80)
	for i, s := range c.series {
		l := line{s.name, []string{"#0b5fa5", "#d1592a", "#2a8a5c"}[i%3], s.dashed, left, nil}
		if s.dashed {
			l.Colour = "#666"
		}
		for _, p := range s.points {
			l.Points = append(l.Points, mark{X: x.at(p[0]), Y: y.at(p[1]), Label: fmt.Sprintf("%s: %s, %s", s.name, si(p[0]), number(p[1]))})
		}
		lines = append(lines, l)
		left += place(60 + 7.5*float64(len(s.name))) // as wide as the letters are, about
	}
	var b bytes.Buffer
	err := template.Must(template.New("").Parse(picture)).Execute(&b, map[string]any{
		"Title": c.title, "XName": c.x, "YName": c.y, "XTicks": x.ticks(), "YTicks": y.ticks(), "Lines": lines,
	})
	return b.Bytes(), err
}

// si writes a number of an axis.
func si(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%.4g", v)
}
