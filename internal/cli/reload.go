package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"cis490/internal/serviceuser"
	"cis490/internal/systemd"
)

// NotifyHangup makes SIGHUP a request that waits to be taken: a daemon calls it before
// it begins to start, or a reload in that moment would end it.
func NotifyHangup() <-chan os.Signal {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup
}

// Reloader reads certificates, keys and lists again when a daemon is asked to, and
// keeps the service manager informed.
type Reloader struct {
	Log    *slog.Logger
	Files  []string     // what Load reads
	Config string       // what is read at the start only
	Check  string       // the command line of root that checks all of it
	Load   func() error // after an error everything stays as it was

	failure atomic.Pointer[string] // of the last reload
}

// Run calls Load at each of the hangups until ctx ends.
func (r *Reloader) Run(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		LogNotifyError(r.Log, systemd.Reloading())
		r.reload()
	}
}

func (r *Reloader) reload() {
	if err := r.Load(); err != nil {
		err = serviceuser.Explain(err, r.Check)
		text := err.Error()
		r.failure.Store(&text)
		r.Log.Error("kept the certificates and lists as they were", "err", err, "hint", "fix that and reload again; '"+r.Check+"' tells what a reload would find")
		LogNotifyError(r.Log, systemd.Ready(r.withFailure("")))
		return
	}
	r.failure.Store(nil)
	r.Log.Info("reloaded certificates and lists", "files", strings.Join(r.Files, " "), "not_read", r.Config+" (read at start only)")
	LogNotifyError(r.Log, systemd.Ready("reloaded"))
}

// Recovered notes that the files, at which the last reload may have failed, were loaded
// since.
func (r *Reloader) Recovered() { r.failure.Store(nil) }

// Status tells the service manager how the daemon is. As long as the last reload has
// failed, that is part of it.
func (r *Reloader) Status(status string) {
	LogNotifyError(r.Log, systemd.Status(r.withFailure(status)))
}

func (r *Reloader) withFailure(status string) string {
	failure := r.failure.Load()
	if failure == nil {
		return status
	}
	text := "last reload failed: " + *failure
	if status == "" {
		return text
	}
	return status + "; " + text
}

// configNote is the file, in the runtime directory of a unit, in which the daemon notes
// the path of its configuration file.
const configNote = "config"

// NoteConfig notes the daemon's configuration file for [UseConfigOfDaemon], if the
// service manager gave the daemon a runtime directory.
func NoteConfig(file string) error {
	dir := os.Getenv("RUNTIME_DIRECTORY")
	if dir == "" {
		return nil
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, configNote), []byte(path), 0o600)
}

// UseConfigOfDaemon makes file the configuration file of the daemon that the service
// manager is about to reload, if the command line names none: the unit may have been
// changed to start the daemon with another one.
func UseConfigOfDaemon(c *cobra.Command, file *string) {
	dir := os.Getenv("RUNTIME_DIRECTORY")
	if dir == "" || c.Flags().Changed("config") {
		return
	}
	// Without the note the default is right for the unit as it is installed.
	if b, err := os.ReadFile(filepath.Join(dir, configNote)); err == nil {
		*file = string(b)
	}
}

// LeaveHiddenOut returns the files that a check before a reload can load. Systemd 252
// hides the credentials of a unit from the command that it runs before a reload. They
// stay as they were at the start, so that a reload finds them good. Hidden is what to
// say of them.
func LeaveHiddenOut(files []string) (visible []string, hidden string) {
	var left []string
	for _, path := range files {
		if serviceuser.IsHiddenCredential(path) {
			left = append(left, path)
		} else {
			visible = append(visible, path)
		}
	}
	if len(left) > 0 {
		hidden = "not loaded, as they change at a restart only: " + strings.Join(left, " ") + "\n"
	}
	return visible, hidden
}

// PrintReload prints what a check before a reload has loaded, and what it was to leave
// out.
func PrintReload(w io.Writer, files []string, config, hidden string) error {
	_, err := fmt.Fprintf(w, "a reload can load: %s\n%snot read by a reload: %s\n", strings.Join(files, " "), hidden, config)
	return err
}
