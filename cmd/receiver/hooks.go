package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/logging"
	"cis490/internal/notify"
	"cis490/internal/printable"
	"cis490/internal/receiver"
)

// hookAgent names the program in requests to webhooks and monitors.
func hookAgent() string { return "cis490-receiver/" + cli.Version() }

// hooksCommand returns "receiver hooks".
func hooksCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "hooks",
		Short: "Test and list hooks, run a command per event",
		Long: `Hooks tell other programs what happens: a stored archive, a conflict, damage, a
silent host, low space. [hooks] in receiver.toml names them: a webhook, which
the daemon calls, and the queue of a command, which cis490-hook.service runs.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(hooksListCommand(o), hooksTestCommand(o), hooksRunCommand(o))
	return c
}

func hooksListCommand(o *options) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "list",
		Short: "List what waits for the hooks",
		Long: `List shows for each hook how many events are queued, when the oldest was queued,
and when a failing webhook is tried again. It can run while the receiver runs.`,
		Example: `  receiver hooks list
  receiver hooks list --json | jq 'select(.queued > 0)'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.openDataDir(c)
			if err != nil {
				return err
			}
			queues := notify.Inspect(cfg.Hooks, string(cfg.DataDir))
			if asksJSON(c) {
				return cli.WriteJSONList(c.OutOrStdout(), queues)
			}
			if len(queues) == 0 {
				return printf(c.OutOrStdout(), "no hooks: [hooks] of the configuration names neither url_file nor queue_dir\n")
			}
			return printQueues(c, queues, time.Now())
		},
	})
}

func printQueues(c *cobra.Command, queues []notify.QueueState, now time.Time) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "QUEUE\tQUEUED\tOLDEST\tSTATE")
	for _, q := range queues {
		oldest := "-"
		if !q.Oldest.IsZero() {
			oldest = q.Oldest.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", q.Queue, q.Queued, oldest, describeQueue(q, now))
	}
	return w.Flush()
}

// hookDelay is how long an event may wait for the command before that is shown, as for CIS490HookFails.
const hookDelay = time.Hour

// isOverdue reports whether an event has waited too long for the command. Its queue has no error, because only
// its unit knows why.
func isOverdue(q notify.QueueState, now time.Time) bool {
	return q.Error == "" && q.Queue == notify.CommandQueue && !q.Oldest.IsZero() && now.Sub(q.Oldest) > hookDelay
}

// describeQueue says what is wrong with a queue, or "ok".
func describeQueue(q notify.QueueState, now time.Time) string {
	switch {
	case isOverdue(q, now):
		return "waits: see 'journalctl -u cis490-hook' and 'systemctl status cis490-hook.path'"
	case q.Error == "":
		return "ok"
	case q.Paused:
		return "paused until a reload: " + printable.Text(q.Error)
	case !q.Next.IsZero():
		return "next attempt " + q.Next.Format(time.RFC3339) + ": " + printable.Text(q.Error)
	}
	return printable.Text(q.Error)
}

// hookTest is what 'receiver hooks test --json' prints for each hook.
type hookTest struct {
	Queue string `json:"queue"` // "webhook" or "command"
	To    string `json:"to,omitempty"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

func hooksTestCommand(o *options) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "test",
		Short: "Send a test event to each hook",
		Long: `Test sends an event of the type "test" to the webhook at once, bypassing its
queue, and adds one to the queue of the command. It runs as the receiver's user,
so it also shows whether the daemon can read the files of the URL and secret.

Exit codes: 4 the webhook is unreachable, or refused the event.`,
		Example: "  sudo receiver hooks test",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.openDataDir(c)
			if err != nil {
				return err
			}
			if !cfg.Hooks.IsEnabled() {
				return cli.UsageError(errors.New("there are no hooks: set url_file or queue_dir in [hooks] of the configuration"))
			}
			return testHooks(c, cfg)
		},
	})
}

func testHooks(c *cobra.Command, cfg receiver.Config) error {
	var tests []hookTest
	var errs []error
	if cfg.Hooks.URLFile != "" {
		to, err := notify.SendTest(c.Context(), cfg.Hooks, hookAgent(), notify.NewTest(time.Now()))
		tests = append(tests, hookTest{Queue: notify.WebhookQueue, To: to, OK: err == nil})
		errs = append(errs, explainWebhookError(to, err))
	}
	if cfg.Hooks.QueueDir != "" {
		dir := string(cfg.Hooks.QueueDir)
		err := notify.QueueTest(cfg.Hooks, notify.NewTest(time.Now()))
		tests = append(tests, hookTest{Queue: notify.CommandQueue, To: dir, OK: err == nil})
		if err != nil {
			err = fmt.Errorf("queue of the command: %w; see \"A command\" in docs/hooks.md", err)
		}
		errs = append(errs, err)
	}
	for i, t := range tests {
		if errs[i] != nil {
			t.Error = errs[i].Error()
		}
		if asksJSON(c) {
			errs = append(errs, cli.WriteJSON(c.OutOrStdout(), t))
		} else if t.OK && t.Queue == notify.WebhookQueue {
			errs = append(errs, printf(c.OutOrStdout(), "webhook: %s accepted a test event\n", printable.Text(t.To)))
		} else if t.OK {
			errs = append(errs, printf(c.OutOrStdout(), "command: added a test event to %s\n", printable.Text(t.To)))
		}
	}
	return errors.Join(errs...)
}

// explainWebhookError gives the error of a webhook its exit code, and says what to do.
func explainWebhookError(to string, err error) error {
	if err == nil {
		return nil
	}
	status, answered := errors.AsType[*notify.StatusError](err)
	if to == "" { // a file cannot be used
		return cli.UsageError(fmt.Errorf("webhook: %w", err))
	}
	hint := "check the network, and the URL in hooks.url_file"
	switch {
	case answered && (status.Code == 401 || status.Code == 403):
		hint = "does that server have the secret in hooks.secret_file?"
	case answered && status.Code/100 == 3:
		hint = "write the URL to which it redirects to hooks.url_file"
	case answered && (status.Code == 404 || status.Code == 410):
		hint = "the URL in hooks.url_file is wrong, or was revoked"
	case answered:
		hint = "the log of that server says why"
	}
	return &cli.ExitError{Code: cli.Unreachable, Err: fmt.Errorf("webhook %s: %w; %s", to, err, hint)}
}

func hooksRunCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "run DIR -- COMMAND [ARG]...",
		Short: "Run a command for each event of a queue",
		Long: `Run runs COMMAND once for each event in the queue DIR, in order, with the event
as JSON on its stdin. Its arguments and environment contain nothing of the
event, because hosts choose names. The event is removed if COMMAND exits with 0
within a minute. Otherwise COMMAND is run again, after 5 s at first and an hour
at most; after 20 failures the event is dropped. Run ends when DIR is empty.

cis490-hook.service runs it, when cis490-hook.path finds an event. It needs no
configuration, and refuses to run as root.`,
		Example: "  receiver hooks run /var/lib/cis490-hook/queue -- /etc/cis490/hook",
		Args: checkArgs(cobra.MinimumNArgs(2), func(args []string) error {
			if !filepath.IsAbs(args[1]) {
				return fmt.Errorf("COMMAND %s: must be an absolute path", printable.Quote(args[1], 200))
			}
			return nil
		}),
		RunE: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 1 {
				return cli.UsageError(errors.New("write -- between DIR and COMMAND"))
			}
			if os.Geteuid() == 0 {
				return cli.UsageError(errors.New("it does not run as root: enable cis490-hook.path, which runs it as the user cis490-hook"))
			}
			log, flush := logging.NewDaemon(o.verbose, logging.Text)
			defer flush()
			signal.Reset(syscall.SIGPIPE) // the command inherits what is ignored
			r := notify.Runner{Dir: args[0], Command: args[1:], StateDir: os.Getenv("RUNTIME_DIRECTORY"), Output: os.Stderr, Log: log}
			return r.Run(c.Context())
		},
	}
}
