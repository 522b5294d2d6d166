package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// chart is a graph with logarithmic axes: the exponent of a power function is its slope.
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

// Where things are, in the units of the picture.
const (
	width, height = 720.0, 440.0
	left, right   = 80.0, 20.0
	top, bottom   = 46.0, 92.0
	legendY       = height - 14
)

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

func (a axis) at(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}

// ticks are the powers of ten, and two and five times those where there is space.
func (a axis) ticks() (major, minor samples) {
	for e := a.low; e <= a.high; e++ {
		major = append(major, math.Pow(10, e))
		for _, m := range []float64{2, 5} {
			if e < a.high && a.high-a.low <= 3 {
				minor = append(minor, m*math.Pow(10, e))
			}
		}
	}
	return major, minor
}

func (c chart) svg() []byte {
	var xs, ys samples
	for _, s := range c.series {
		for _, p := range s.points {
			xs, ys = append(xs, p[0]), append(ys, p[1])
		}
	}
	x, y := around(xs, left, width-right), around(ys, height-bottom, top)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="#fff"/>`+"\n", width, height)
	text(&b, left, 26, "start", "font-size=\"16\" font-weight=\"bold\"", c.title)
	c.grid(&b, x, y)
	at := left
	for i, s := range c.series {
		s.draw(&b, x, y, s.colour(i))
		s.legend(&b, at, s.colour(i))
		at += 60 + 7.5*float64(len(s.name)) // as wide as the letters are, about
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (c chart) grid(b *bytes.Buffer, x, y axis) {
	major, minor := x.ticks()
	for i, v := range append(major, minor...) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%g" x2="%.1f" y2="%g" stroke="%s"/>`+"\n", x.at(v), top, x.at(v), height-bottom, shade(i < len(major)))
		text(b, x.at(v), height-bottom+18, "middle", `fill="#444"`, si(v))
	}
	major, minor = y.ticks()
	for i, v := range append(major, minor...) {
		fmt.Fprintf(b, `<line x1="%g" y1="%.1f" x2="%g" y2="%.1f" stroke="%s"/>`+"\n", left, y.at(v), width-right, y.at(v), shade(i < len(major)))
		text(b, left-8, y.at(v)+4, "end", `fill="#444"`, si(v))
	}
	text(b, (left+width-right)/2, height-bottom+40, "middle", "", c.x)
	fmt.Fprintf(b, `<text transform="translate(20 %g) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (top+height-bottom)/2, html.EscapeString(c.y))
}

func shade(major bool) string {
	if major {
		return "#bbb"
	}
	return "#e6e6e6"
}

func (s series) draw(b *bytes.Buffer, x, y axis, colour string) {
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2"%s points="`, colour, s.dash())
	for _, p := range s.points {
		fmt.Fprintf(b, "%.1f,%.1f ", x.at(p[0]), y.at(p[1]))
	}
	b.WriteString(`"/>` + "\n")
	if s.dashed {
		return
	}
	for _, p := range s.points {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"><title>%s: %s, %s</title></circle>`+"\n",
			x.at(p[0]), y.at(p[1]), colour, html.EscapeString(s.name), si(p[0]), number(p[1]))
	}
}

func (s series) dash() string {
	if s.dashed {
		return ` stroke-dasharray="5 5" stroke-opacity="0.6"`
	}
	return ""
}

func (s series) legend(b *bytes.Buffer, at float64, colour string) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%g" x2="%.1f" y2="%g" stroke="%s" stroke-width="3"%s/>`+"\n", at, legendY-4, at+24, legendY-4, colour, s.dash())
	text(b, at+30, legendY, "start", "", s.name)
}

func text(b *bytes.Buffer, x, y float64, anchor, style, words string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`+"\n", x, y, anchor, style, html.EscapeString(words))
}

// colour is one of three that a colour-blind reader can distinguish, or the grey of a guide.
func (s series) colour(i int) string {
	if s.dashed {
		return "#666"
	}
	return []string{"#0b5fa5", "#d1592a", "#2a8a5c"}[i%3]
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
