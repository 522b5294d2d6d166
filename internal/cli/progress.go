package cli

import (
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// ShowProgress shows how many bytes were read, until done is called. It shows nothing if w is not a
// terminal. What is a short description.
func ShowProgress(w io.Writer, what string) (read func(n int), done func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func(int) {}, func() {}
	}
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription(what), progressbar.OptionClearOnFinish())
	return func(n int) { bar.Add(n) }, func() { bar.Finish() }
}
