package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/durable"
	"cis490/internal/hint"
	"cis490/internal/invite"
	"cis490/internal/pki"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/systemd"
	"cis490/internal/wire"
)

const (
	serviceUnit = "cis490-shipper.service"
	timerUnit   = "cis490-shipper-once.timer"
	onceUnit    = "cis490-shipper-once.service" // which the timer starts
	joinWait    = time.Minute                   // for the receiver's answer, at all its addresses
	maxTokenLen = 64 << 10
)

// joinCommand returns "shipper join".
func joinCommand(o *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "join {TOKEN | - | --token-file FILE}",
		Short: "Get this host's certificate by an invitation",
		Long: `Join gets the certificate of this host by a token that 'receiver invite' printed
on the receiver. It checks the receiver's CA by the token, creates the host's
key here, and writes certificate, CA and, if there is none, the configuration.
As root it also enables and starts the service. It then tests the connection.

The key never leaves this host, and the certificate renews itself. An
interrupted join can be repeated with the same token until that expires. With
'-' the token is read from standard input, so that it appears neither in the
process list nor in the shell's history.`,
		Example: `  sudo shipper join cis490_join_eyJ2Ijox...
  shipper join --config ./lab-host.toml --token-file token.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) == 1) == (file != "") {
				return errors.New("requires a TOKEN, '-' or --token-file FILE")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			token, err := readToken(c.InOrStdin(), file, args)
			if err != nil {
				return cli.UsageError(err)
			}
			return runJoin(c, o, token)
		},
	}
	c.Flags().StringVar(&file, "token-file", "", "read the token from `FILE`")
	return cli.PrintsJSON(c)[0]
}

func readToken(in io.Reader, file string, args []string) (invite.Token, error) {
	name := "standard input"
	switch {
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return invite.Token{}, err
		}
		defer f.Close()
		in, name = f, file
	case args[0] != "-":
		in = strings.NewReader(args[0])
	}
	text, err := durable.ReadAtMost(in, name, maxTokenLen)
	if err != nil {
		return invite.Token{}, err
	}
	// Users paste the whole line that 'receiver invite' printed. The token is its last word.
	words := strings.Fields(string(text))
	if len(words) == 0 {
		return invite.ParseToken("")
	}
	return invite.ParseToken(words[len(words)-1])
}

// joinReport is what join --json prints.
type joinReport struct {
	Host      string    `json:"host_id"`
	URL       string    `json:"url"`
	NotAfter  time.Time `json:"not_after"`
	Config    string    `json:"config"`
	Written   bool      `json:"config_written"`
	Started   bool      `json:"started"` // the service was enabled and started
	Reachable bool      `json:"reachable"`
}

// runJoin gets the certificate, and then writes the configuration: a host without a certificate
// keeps the files that it had.
func runJoin(c *cobra.Command, o *options, token invite.Token) error {
	if err := token.CheckClock(time.Now()); err != nil {
		return err
	}
	plan, err := planConfig(o.config, token)
	if err != nil {
		return err
	}
	_, missing := os.Lstat(plan.identity)
	notAfter, url, err := getCertificate(c.Context(), plan, token)
	if err != nil {
		if errors.Is(missing, fs.ErrNotExist) {
			_ = os.Remove(plan.identity) // stays if it has a key
		}
		return err
	}
	if err := plan.writeConfig(url); err != nil {
		return fmt.Errorf("the certificate is installed, but the configuration is not: %w", err)
	}
	report := joinReport{Host: string(token.Host), URL: url, NotAfter: notAfter.UTC(), Config: o.config, Written: plan.text != nil}
	if report.Started, err = startService(c.Context(), o.config); err != nil {
		return err
	}
	return finishJoin(c, o, report)
}

// getCertificate asks for the certificate at each address of the receiver in turn, installs it, and
// returns when it expires and the URL that answered. It writes nothing unless the receiver proved
// that the token is from it.
func getCertificate(ctx context.Context, plan *configPlan, token invite.Token) (time.Time, string, error) {
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	var failed []error
	for _, url := range token.URLs {
		leaf, err := askFor(ctx, url, plan, token)
		if err == nil {
			return leaf.NotAfter, url, nil
		}
		err = fmt.Errorf("%s: %w", url, err)
		if _, unanswered := errors.AsType[*unansweredError](err); !unanswered {
			return time.Time{}, "", err
		}
		failed = append(failed, err)
	}
	err := errors.Join(failed...)
	if advice := hint.For(failed[0]); advice != "" {
		err = fmt.Errorf("%w\n  hint: %s", err, advice)
	}
	return time.Time{}, "", &cli.ExitError{Code: cli.Unreachable, Err: err}
}

// unansweredError says that an address gave no answer. Another address may.
type unansweredError struct{ error }

// Unwrap returns the reason.
func (e *unansweredError) Unwrap() error { return e.error }

// askFor asks at one address.
func askFor(ctx context.Context, url string, plan *configPlan, token invite.Token) (*x509.Certificate, error) {
	addr, err := invite.Address(url)
	if err != nil {
		return nil, err
	}
	conn, root, err := credentials.DialJoin(ctx, wire.Dial, addr, wire.JoinProtocol, token.CA, time.Now())
	if err != nil {
		return nil, &unansweredError{err}
	}
	defer conn.Close()
	leaf, err := requestCertificate(ctx, conn, addr, root, plan.identity, token)
	if _, serr := os.Stat(plan.identity); serr == nil { // root's files are the service's, also after an error
		err = errors.Join(err, serviceuser.GiveDir(stateOf(plan.config), plan.identity, pki.IdentityLayout()))
	}
	return leaf, err
}

// requestCertificate sends the request over a connection, and installs the answer.
func requestCertificate(ctx context.Context, conn net.Conn, addr string, root *x509.Certificate, identity string, token invite.Token) (*x509.Certificate, error) {
	lock, err := credentials.LockIdentity(ctx, identity)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	pending, err := credentials.OpenPending(identity, token.ID)
	if err != nil {
		return nil, err
	}
	chain, err := wire.Join(ctx, conn, addr, wire.JoinRequest{Invitation: token.ID, Secret: token.Secret, CSR: pending.Request})
	if errors.Is(err, wire.TokenRefused) { // after any other error, the certificate may have been issued
		return nil, errors.Join(err, pending.Discard())
	}
	if _, refused := errors.AsType[*wire.Problem](err); refused {
		return nil, err
	}
	if err != nil {
		return nil, &unansweredError{err}
	}
	return pending.Install(token.Host, chain, root)
}

// configPlan says what joining does to the configuration file.
type configPlan struct {
	path     string
	config   shipper.Config
	identity string
	text     func(url string) []byte // the new content; nil leaves the file as it is
}

// exampleHost and exampleURL are the values of the example, which packages install.
const (
	exampleHost = "lab-01"
	exampleURL  = "https://receiver.lab:8443"
)

// planConfig decides what is written, and writes nothing. It refuses a configuration of another
// host.
func planConfig(path string, token invite.Token) (*configPlan, error) {
	p := &configPlan{path: path}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return p, p.planNew(token)
	}
	var err error
	if p.config, err = shipper.LoadForJoin(path); err != nil {
		return nil, cli.UsageError(err)
	}
	p.identity = string(p.config.IdentityDir)
	if p.identity == "" {
		return nil, cli.UsageError(fmt.Errorf("%s says identity_dir = \"\", so that nothing can be kept of joining: remove that line, or name a directory", path))
	}
	// The install script may have set host_id alone.
	unset := p.config.HostID == exampleHost || p.config.HostID == token.Host
	example := unset && p.config.Receiver.URL == exampleURL && isMissing(string(p.config.Receiver.CertFile))
	switch {
	case example:
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		p.text = func(url string) []byte { return fillIn(text, string(token.Host), url) }
	case p.config.HostID != token.Host:
		return nil, cli.UsageError(fmt.Errorf("%s says host_id = %q, but the token is for host %s: change host_id there, or ask for a token with 'receiver invite %s'",
			path, p.config.HostID, token.Host, p.config.HostID))
	}
	return p, nil
}

func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return path == "" || errors.Is(err, fs.ErrNotExist)
}

var (
	hostLine = regexp.MustCompile(`(?m)^[ \t]*host_id[ \t]*=.*$`)
	urlLine  = regexp.MustCompile(`(?m)^[ \t]*url[ \t]*=.*$`)
	certLine = regexp.MustCompile(`(?m)^[ \t]*(cert_file|key_file)[ \t]*=.*$`)
)

// fillIn sets the values of an example that differ from host to host. The files that it names do
// not exist.
func fillIn(text []byte, host, url string) []byte {
	text = hostLine.ReplaceAll(text, fmt.Appendf(nil, "host_id = %q", host))
	text = urlLine.ReplaceAll(text, fmt.Appendf(nil, "url = %q", url))
	return certLine.ReplaceAll(text, []byte(`$1 = ""`))
}

// planNew plans a configuration where there is none. Outside /etc/cis490 all directories are beside
// it.
func (p *configPlan) planNew(token invite.Token) error {
	dir, err := filepath.Abs(filepath.Dir(p.path))
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return cli.UsageError(fmt.Errorf("the configuration %s cannot be written: %w", p.path, err))
	}
	p.config = shipper.DefaultConfig()
	p.identity = pki.IdentityDir(filepath.Join(dir, filepath.Base(p.path)))
	folders := ""
	if p.identity != pki.DefaultIdentityDir {
		folders = "episodes_dir = \"data/episodes\"\noutbox_dir = \"data/outbox\"\nshipped_dir = \"data/shipped\"\n"
		p.config.OutboxDir = config.Path(filepath.Join(dir, "data/outbox"))
	}
	p.text = func(url string) []byte {
		return fmt.Appendf(nil, `# Written by 'shipper join'. lab-host.toml.example lists all keys.
host_id = %q
%s
[receiver]
url = %q
`, token.Host, folders, url)
	}
	return nil
}

// writeConfig writes the planned configuration, unless that is what the file has.
func (p *configPlan) writeConfig(url string) error {
	if p.text == nil {
		return nil
	}
	dir, err := serviceuser.OpenDir(filepath.Dir(p.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	text := p.text(url)
	if old, err := os.ReadFile(p.path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return dir.WriteFile(filepath.Base(p.path), text, 0o644)
}

// startService enables and starts the service of the default configuration. It reports false where
// no service is managed.
func startService(ctx context.Context, file string) (bool, error) {
	if os.Geteuid() != 0 || file != shipper.DefaultConfigFile || !systemd.IsRunning() {
		return false, nil
	}
	unit := serviceUnit
	if timer, err := systemd.ShowUnit(ctx, timerUnit, "UnitFileState"); err == nil && timer.FirstValue("UnitFileState") == "enabled" {
		unit = timerUnit // a host that runs from the timer keeps it
	}
	if err := systemd.Control(ctx, "enable", unit); err != nil {
		return false, err
	}
	return true, systemd.Control(ctx, "restart", unit)
}

// finishJoin tests the connection and says what to do next.
func finishJoin(c *cobra.Command, o *options, report joinReport) error {
	if !o.json {
		if err := printJoin(c, o, report); err != nil {
			return err
		}
		return runPing(c, o)
	}
	p, err := pingReceiver(c, o)
	if err != nil {
		return err
	}
	report.Reachable = p.err == nil
	return errors.Join(cli.WriteJSON(c.OutOrStdout(), report), p.exitError())
}

func printJoin(c *cobra.Command, o *options, report joinReport) error {
	out := c.OutOrStdout()
	fmt.Fprintf(out, "host %s has joined %s; its certificate is valid until %s\n",
		report.Host, report.URL, report.NotAfter.Format(time.DateOnly))
	if report.Written {
		fmt.Fprintf(out, "configuration: %s\n", o.config)
	}
	next := "shipper"
	if o.config != shipper.DefaultConfigFile {
		next = "shipper --config " + o.config
	}
	if report.Started {
		_, err := fmt.Fprintf(out, "service: started\nNext: write an episode to episodes_dir, create done.marker in it last, then run: %s status\n\n", next)
		return err
	}
	_, err := fmt.Fprintf(out, "service: not started\nNext: %s --once, or run it as a daemon: %s\n\n", next, next)
	return err
}
