package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"cis490/internal/ca"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/gate"
	"cis490/internal/hostrecord"
	"cis490/internal/hosts"
	"cis490/internal/invite"
	"cis490/internal/pki"
	"cis490/internal/receiver"
	"cis490/internal/rotation"
	"cis490/internal/serviceuser"
	"cis490/internal/systemd"
)

// rotateOptions are the flags of "receiver pki rotate".
type rotateOptions struct {
	finish, force bool
	offline       bool
	caDays        int
}

func pkiRotateCommand(o *options) *cobra.Command {
	var r rotateOptions
	c := &cobra.Command{
		Use:   "rotate [--finish [--force]]",
		Short: "Replace the CAs while all hosts keep shipping",
		Long: `Rotate creates new CAs beside the present ones. The receiver then accepts hosts of
both, and each host that has joined learns the new CA and renews its certificate
by itself: a daemon within minutes, a host with a timer within about an hour.
'receiver hosts' lists the hosts that are not ready.

With --finish, rotate retires the former CAs. It refuses to as long as a host
would be locked out, unless --force is given; disabled and removed hosts do not
count. The former CAs stay in a directory beside the new ones: delete it, or
keep it offline.

The key of the receiver's root, ca.key, must be in the directory of the CAs for
the first step: hosts accept a new root only if their present one has signed it.
Both steps can be repeated after an interruption.`,
		Example: `  sudo receiver pki rotate
  receiver hosts
  sudo receiver pki rotate --finish`,
		Args: checkArgs(cobra.NoArgs, func([]string) error {
			if r.force && !r.finish {
				return errors.New("--force is for --finish")
			}
			return checkDays("ca-days", r.caDays)
		}),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.loadConfig()
			if err != nil {
				return err
			}
			dir, err := rotatedDir(cfg)
			if err != nil {
				return cli.UsageError(err)
			}
			if r.finish {
				return finishRotation(c, o, cfg, dir, r.force)
			}
			return beginRotation(c, o, cfg, dir, r)
		},
	}
	addJSON(c, printsObject)
	c.Flags().BoolVar(&r.finish, "finish", false, "retire the former CAs")
	c.Flags().BoolVar(&r.force, "force", false, "finish even if hosts are locked out")
	c.Flags().BoolVar(&r.offline, "offline", false, "create no issuing CAs (default: as now)")
	c.Flags().IntVar(&r.caDays, "ca-days", asDays(ca.DefaultCAValid), "make the CAs valid for `N` days")
	return c
}

// rotatedDir returns the directory of the CAs. All TLS files of the configuration must be there, so that
// they change together.
func rotatedDir(cfg receiver.Config) (string, error) {
	dir := filepath.Dir(string(cfg.TLS.ClientCAFile))
	for _, file := range []struct {
		key, name string
		value     config.Path
	}{
		{"client_ca_file", "hosts-ca.crt", cfg.TLS.ClientCAFile},
		{"cert_file", "server.crt", cfg.TLS.CertFile},
		{"key_file", "server.key", cfg.TLS.KeyFile},
		{"crl_file", "hosts.crl", cfg.TLS.CRLFile},
	} {
		if want := filepath.Join(dir, file.name); string(file.value) != want {
			return "", fmt.Errorf("the configuration says tls.%s = %q: rotate needs %s, in the directory that 'receiver setup' or 'receiver pki init' created", file.key, file.value, want)
		}
	}
	if filepath.Dir(string(cfg.Auth.TokensFile)) == dir {
		return "", fmt.Errorf("the configuration says auth.tokens_file = %q: move it to another directory, which this command does not exchange", cfg.Auth.TokensFile)
	}
	if cfg.IdentityDir == "" {
		return "", errors.New("identity_dir is empty: name a directory for the state of the rotation")
	}
	return dir, nil
}

func beginRotation(c *cobra.Command, o *options, cfg receiver.Config, dir string, r rotateOptions) error {
	if !c.Flags().Changed("offline") {
		issuing, err := ca.HasIssuing(dir)
		if err != nil {
			return err
		}
		r.offline = !issuing
	}
	created, err := rotation.Start(dir, rotation.Options{CAValid: inDays(r.caDays), Offline: r.offline, Service: stateOf(cfg)})
	if err != nil {
		return err
	}
	action, err := useRotated(c, o, cfg, dir)
	if err != nil {
		return err
	}
	if asksJSON(c) {
		return cli.WriteJSON(c.OutOrStdout(), rotationReport{Step: "started", NewDir: dir + "-next", Created: created, Service: action})
	}
	verb := "kept"
	if created {
		verb = "created"
	}
	return printf(c.OutOrStdout(), `%-8s %s: the new CAs
%s
next     when 'receiver hosts' says that all hosts are ready:
         receiver pki rotate --finish
note     If a proxy has a copy of hosts-ca.crt, replace that now. Hosts that did
         not join need the new ca.crt, and a certificate by 'pki issue'.
`, verb, dir+"-next", serviceLine(action))
}

// rotationReport is what rotate prints as JSON.
type rotationReport struct {
	Step      string `json:"step"`              // started or finished
	NewDir    string `json:"new_dir,omitempty"` // of the new CAs, until the end of the rotation
	Created   bool   `json:"created"`           // they were created, and not by an earlier call
	FormerDir string `json:"former_dir,omitempty"`
	Service   string `json:"service,omitempty"` // reloaded or restarted; empty if that is to be done
}

// serviceLine returns a line for the operator about what was done to the service.
func serviceLine(action string) string {
	if action == "" {
		return "next     reload the receiver: send it SIGHUP"
	}
	return action + " the service"
}

// useRotated updates the identity directory, and reloads the service. It returns "reloaded" or
// "restarted", or "" if no service is managed here.
func useRotated(c *cobra.Command, o *options, cfg receiver.Config, dir string) (outcome string, err error) {
	identity := string(cfg.IdentityDir)
	give := func() error {
		return serviceuser.GiveDir(stateOf(cfg), identity, pki.IdentityLayout(invite.Layout()...))
	}
	_, serr := gate.OpenIssuer(identity)
	if err := errors.Join(pki.CreateIdentityDir(identity), give()); err != nil { // the service's, before it has files
		return "", err
	}
	changed, err := ca.ReplaceIssuing(dir, identity)
	if errors.Is(err, pki.ErrNoIssuing) {
		cli.Note(c, "there is no issuing CA, so hosts cannot join, and do not renew by themselves")
		err = nil
	}
	if err := errors.Join(err, give()); err != nil {
		return "", err
	}
	if os.Geteuid() != 0 || o.config != receiver.DefaultConfigFile || !systemd.IsRunning() {
		return "", nil
	}
	action, outcome := "try-reload-or-restart", "reloaded"
	if errors.Is(serr, pki.ErrNoIssuing) || !changed { // a reload does not let hosts join if none could at the start
		action, outcome = "try-restart", "restarted"
	}
	return outcome, systemd.Control(c.Context(), action, serviceUnit)
}

func finishRotation(c *cobra.Command, o *options, cfg receiver.Config, dir string, force bool) error {
	status, err := hostrecord.ReadRotation(string(cfg.IdentityDir))
	if err != nil {
		return err
	}
	if err := checkReady(c, cfg, force); err != nil {
		return err
	}
	former, err := rotation.Finish(dir, string(cfg.IdentityDir), time.Now())
	if errors.Is(err, rotation.ErrNoRotation) && status != nil { // an earlier call was interrupted after this
		former, err = dir+"-former-*", nil
	}
	if err != nil {
		return err
	}
	action, err := useRotated(c, o, cfg, dir)
	if err != nil {
		return err
	}
	if asksJSON(c) {
		return cli.WriteJSON(c.OutOrStdout(), rotationReport{Step: "finished", FormerDir: former, Service: action})
	}
	return printf(c.OutOrStdout(), `moved    the former CAs to %s: delete it, or keep it offline
%s
note     If a proxy has copies of server.crt, server.key, hosts-ca.crt and
         hosts.crl, replace them now.
`, former, serviceLine(action))
}

// checkReady returns an error if finishing would lock out a host. With force, it only prints which ones.
func checkReady(c *cobra.Command, cfg receiver.Config, force bool) error {
	list, _, err := listHosts(cfg, time.Now())
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // before the receiver's first start
		return err
	}
	if open := openInvitations(list); open > 0 {
		cli.Note(c, "%s will not work any more: invite again", english.Plural(open, "open invitation", ""))
	}
	unready := notReady(list)
	if len(unready) == 0 {
		return nil
	}
	if err := printRotation(c.ErrOrStderr(), list); err != nil || force {
		return err
	}
	return fmt.Errorf("%s would be locked out: wait, disable or remove them, or use --force; they can join again", english.Plural(len(unready), "host", ""))
}

func openInvitations(list []hosts.Host) int {
	n := 0
	for _, h := range list {
		if h.InvitedUntil != nil && h.Rotation != nil {
			n++
		}
	}
	return n
}

// notReady returns the hosts that have access and would lose it at the end of the rotation.
func notReady(list []hosts.Host) (unready []hosts.Host) {
	for _, h := range list {
		if h.Rotation != nil && h.State == datadir.HostActive && !(h.Rotation.TrustsNewCA && h.Rotation.HasNewCertificate) {
			unready = append(unready, h)
		}
	}
	return unready
}

// printRotation prints the progress of a rotation, or nothing if there is none.
func printRotation(w io.Writer, list []hosts.Host) error {
	active, rotating := 0, false
	for _, h := range list {
		rotating = rotating || h.Rotation != nil
		if h.State == datadir.HostActive {
			active++
		}
	}
	if !rotating {
		return nil
	}
	unready := notReady(list)
	if err := printf(w, "\nRotation of the CAs: %d of %d active hosts are ready for 'pki rotate --finish'.\n", active-len(unready), active); err != nil {
		return err
	}
	for _, h := range unready {
		if err := printf(w, "  not ready, %s: %s\n", unreadyReason(h.Rotation), h.Name()); err != nil {
			return err
		}
	}
	return nil
}

// unreadyReason returns why a host is not ready.
func unreadyReason(r *hosts.Rotation) string {
	switch {
	case r.TrustsNewCA:
		return "its certificate is of the former CA"
	case r.HasNewCertificate:
		return "it does not trust the new CA"
	}
	return "it has neither the new CA nor a new certificate"
}
