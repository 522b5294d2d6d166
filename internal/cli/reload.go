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
	"golang.org/x/sync/errgroup"

	"cis490/internal/serviceuser"
	"cis490/internal/systemd"
)

// NotifyHangup returns a channel of SIGHUP signals. A daemon must call it before it starts, or an
// early reload would end it.
func NotifyHangup() <-chan os.Signal {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup
}

// Reloader reloads certificates, keys and lists on request, and informs the service manager.
type Reloader struct {
	Log    *slog.Logger
	Files  []string     // files that Load reads
	Config string       // files that only the start reads
	Check  string       // the command line with which root checks the files
	Load   func() error // after an error nothing must have changed

	failure atomic.Pointer[string] // of the last reload, or nil
}

// Prepare warns of files that root could read at the start and that the daemon's user cannot read
// at a reload, and records the configuration file for [UseConfigOfDaemon].
func (r *Reloader) Prepare() {
	if err := serviceuser.CheckReadable(r.Files, r.Check); err != nil {
		r.Log.Warn("next reload will fail", "err", err)
	}
	if err := NoteConfig(r.Config); err != nil {
		r.Log.Warn("configuration path not saved", "err", err, "hint", "a check before a reload reads the default file")
	}
}

// RunDaemon runs each serve, and beside them what both daemons do, until one of them fails or ctx
// ends: reloads for each hangup, the watchdog with alive, and daily, now and then once a day.
// Systemctl shows ready as the first status.
func (r *Reloader) RunDaemon(ctx context.Context, hup <-chan os.Signal, ready string, alive func(context.Context) bool, daily func(), serve ...func(context.Context) error) error {
	LogNotifyError(r.Log, systemd.NotifyReady(ready))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return systemd.RunWatchdog(ctx, alive) })
	for _, serve := range serve {
		g.Go(func() error { return serve(ctx) })
	}
	g.Go(func() error {
		r.Run(ctx, hup)
		return nil
	})
	g.Go(func() error {
		runDaily(ctx, daily)
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		LogNotifyError(r.Log, systemd.NotifyStopping())
		return nil
	})
	return g.Wait()
}

// Run calls Load for each hangup until ctx ends.
func (r *Reloader) Run(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		LogNotifyError(r.Log, systemd.NotifyReloading())
		r.loadFiles()
	}
}

func (r *Reloader) loadFiles() {
	if err := r.Load(); err != nil {
		err = serviceuser.Explain(err, r.Check)
		text := err.Error()
		r.failure.Store(&text)
		r.Log.Error("certificates and lists not reloaded", "err", err, "hint", "fix that and reload again; '"+r.Check+"' tells what a reload would find")
		LogNotifyError(r.Log, systemd.NotifyReady(r.withFailure("")))
		return
	}
	r.failure.Store(nil)
	r.Log.Info("reloaded certificates and lists", "files", strings.Join(r.Files, " "), "not_read", r.Config+" (read at start only)")
	LogNotifyError(r.Log, systemd.NotifyReady("reloaded"))
}

// ClearFailure records that the files of a failed reload were loaded since.
func (r *Reloader) ClearFailure() { r.failure.Store(nil) }

// NotifyStatus sends the daemon's status to the service manager. It includes a failure of the last
// reload.
func (r *Reloader) NotifyStatus(status string) {
	LogNotifyError(r.Log, systemd.NotifyStatus(r.withFailure(status)))
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

// configNote is the file in the unit's runtime directory in which the daemon records the path of
// its configuration file.
const configNote = "config"

// NoteConfig records the daemon's configuration file for [UseConfigOfDaemon]. It does nothing
// without a runtime directory.
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

// UseConfigOfDaemon sets file to the configuration file of the daemon that is about to be reloaded,
// unless the command line names one. The unit may have been changed to start the daemon with
// another file.
func UseConfigOfDaemon(c *cobra.Command, file *string) {
	dir := os.Getenv("RUNTIME_DIRECTORY")
	if dir == "" || c.Flags().Changed("config") {
		return
	}
	// Without the record, the default is right for an unchanged unit.
	if b, err := os.ReadFile(filepath.Join(dir, configNote)); err == nil {
		*file = string(b)
	}
}

// LeaveHiddenOut returns the files that a check before a reload can load. Systemd 252 hides the
// credentials of a unit from its reload command. They stay as at the start, so a reload accepts
// them. Hidden is a message about them.
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

// PrintReload prints what a check before a reload has loaded and left out.
func PrintReload(w io.Writer, files []string, config, hidden string) error {
	_, err := fmt.Fprintf(w, "a reload can load: %s\n%snot read by a reload: %s\n", strings.Join(files, " "), hidden, config)
	return err
}
