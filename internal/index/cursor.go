package index

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cis490/internal/durable"
)

// cursor is a place in the index up to which it was read. It reads beside
// whoever appends and takes no lock: what has a newline is a row.
type cursor struct {
	pos  int64 // behind the last newline that was read
	line int64 // how many lines that were
	kept int64 // behind the last line that is not cut with a torn tail
}

// advance hands the lines that have come since to visit. It returns whether
// bytes without a newline follow them.
func (c *cursor) advance(ctx context.Context, r io.ReaderAt, visit func(n int64, row Row, err error)) (bool, error) {
	from := c.pos
	in := &counted{ctx: ctx, r: io.NewSectionReader(r, from, 1<<62-from)}
	for l, err := range forward(in) {
		if err != nil {
			return false, err
		}
		c.line++
		c.pos = from + l.end
		row, err := l.row()
		if err == nil || whole(l.text) {
			c.kept = c.pos
		}
		visit(c.line, row, err)
	}
	return from+in.n > c.pos, nil
}

// counted ends with its context.
type counted struct {
	ctx context.Context
	r   io.Reader
	n   int64
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// source is an index opened for reading. One that does not exist is empty.
type source struct {
	f *os.File
}

func openSource(path string) (source, error) {
	dir, err := durable.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return source{}, nil
	}
	if err != nil {
		return source{}, err
	}
	defer dir.Close()
	f, err := dir.Open(filepath.Base(path))
	if errors.Is(err, fs.ErrNotExist) {
		return source{}, nil
	}
	return source{f}, err
}

func (s source) ReadAt(p []byte, off int64) (int, error) {
	if s.f == nil {
		return 0, io.EOF
	}
	return s.f.ReadAt(p, off)
}

func (s source) close() {
	if s.f != nil {
		s.f.Close()
	}
}
