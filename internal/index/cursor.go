package index

import (
	"context"
	"io"
)

// Cursor is a position in the index. The zero value is its beginning. Reading takes no
// lock: a line that has its newline is complete.
type Cursor struct {
	offset     int64 // after the last newline that was read
	line       int64 // number of lines before offset
	keptOffset int64 // after the last line that cannot be cut as part of a torn tail
}

// Offset returns the number of bytes that were read, up to the last newline.
func (c *Cursor) Offset() int64 { return c.offset }

// Line returns the number of lines that were read.
func (c *Cursor) Line() int64 { return c.line }

// Rewind goes back to the end of the last line that cannot be cut as part of a torn tail:
// other rows may take the place of what follows.
func (c *Cursor) Rewind() { c.offset = c.keptOffset }

// Advance passes the lines after the cursor to visit, with their numbers. It reports whether
// bytes without a newline follow them.
func (c *Cursor) Advance(ctx context.Context, r io.ReaderAt, visit func(n int64, row Row, err error)) (bool, error) {
	from := c.offset
	in := &contextReader{ctx: ctx, r: io.NewSectionReader(r, from, 1<<62-from)}
	for l, err := range linesForward(in) {
		if err != nil {
			return false, err
		}
		c.line++
		c.offset = from + l.end
		row, err := l.parseRow()
		if err == nil || isObject(l.text) {
			c.keptOffset = c.offset
		}
		visit(c.line, row, err)
	}
	return from+in.n > c.offset, nil
}

// contextReader reads until a context ends, and counts the bytes.
type contextReader struct {
	ctx context.Context
	r   io.Reader
	n   int64
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
