package archive

import "io"

// overlapped is a buffered writer whose buffers another goroutine writes, so that
// coding does not wait for hashing and for the page cache. It must be closed, also
// after an error.
type overlapped struct {
	w      io.Writer
	buf    []byte      // is being filled
	full   chan []byte // are to be written
	empty  chan []byte // can be filled
	ended  chan struct{}
	err    error // what w said; before ended is closed it belongs to the goroutine
	closed bool
}

// ahead is how many buffers may wait to be written.
const ahead = 8

func overlap(w io.Writer) *overlapped {
	o := &overlapped{
		w: w, buf: make([]byte, 0, chunk),
		full: make(chan []byte, ahead), empty: make(chan []byte, ahead+1), ended: make(chan struct{}),
	}
	for range ahead {
		o.empty <- nil
	}
	go o.run()
	return o
}

func (o *overlapped) run() {
	defer close(o.ended)
	for b := range o.full {
		if _, o.err = o.w.Write(b); o.err != nil {
			return
		}
		o.empty <- b[:0]
	}
}

// Write returns, soon, the error of an earlier one.
func (o *overlapped) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), cap(o.buf)-len(o.buf))
		o.buf = append(o.buf, p[:k]...)
		if p = p[k:]; len(o.buf) < cap(o.buf) {
			break
		}
		if err := o.next(); err != nil {
			return n - len(p), err
		}
	}
	return n, nil
}

// next hands the buffer on and takes another one.
func (o *overlapped) next() error {
	select {
	case o.full <- o.buf:
	case <-o.ended:
		return o.err
	}
	select {
	case o.buf = <-o.empty:
	case <-o.ended:
		return o.err
	}
	if o.buf == nil {
		o.buf = make([]byte, 0, chunk)
	}
	return nil
}

// Close waits until all is written, or until that has failed.
func (o *overlapped) Close() error {
	if o.closed {
		return o.err
	}
	o.closed = true
	select {
	case o.full <- o.buf:
	case <-o.ended:
	}
	close(o.full)
	<-o.ended
	return o.err
}
