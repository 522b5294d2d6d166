package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"cis490/internal/ca"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/gate"
	"cis490/internal/invite"
	"cis490/internal/pki"
	"cis490/internal/printable"
	"cis490/internal/receiver"
	"cis490/internal/serviceuser"
	"cis490/internal/systemd"
)

// setupCommand returns "receiver setup".
func setupCommand(o *options) *cobra.Command {
	var init ca.InitOptions
	var dir, listen string
	c := &cobra.Command{
		Use:   "setup --name NAME[,IP...]",
		Short: "Set up this machine as the receiver",
		Long: `Setup creates the CAs, the receiver's certificate and, if there is none, the
configuration. It lets hosts join, and as root it starts the service. Finally it
checks the result. It can be run again at any time: it keeps what exists, and
says so.

The names are the DNS names and IP addresses by which hosts reach the receiver.
The keys of the CAs, ca.key and hosts-ca.key, may be moved offline afterwards.
With --offline, nothing here can sign for hosts: issue their certificates with
'receiver pki issue' where the keys are.`,
		Example: `  sudo receiver setup --name receiver.lab,10.0.0.1
  receiver setup --name localhost --config ./receiver.toml`,
		Args: checkArgs(cobra.NoArgs, func([]string) error { return errors.Join(init.Validate(), checkListen(listen)) }),
		RunE: func(c *cobra.Command, _ []string) error { return runSetup(c, o, dir, listen, init) },
	}
	c.Flags().StringSliceVar(&init.Names, "name", nil, "DNS `NAMES` and IPs of the receiver (required)")
	c.Flags().StringVar(&init.TrustDomain, "trust-domain", pki.DefaultTrustDomain, "trust `DOMAIN` of the hosts")
	c.Flags().BoolVar(&init.Offline, "offline", false, "create no CA that can sign for hosts here")
	c.Flags().StringVar(&dir, "pki", "", "directory `DIR` of the CAs (default: beside the file)")
	c.Flags().StringVar(&listen, "listen", receiver.DefaultConfig().Listen, "`ADDRESS` in a new configuration")
	addJSON(c, printsObject)
	mustMark(c.MarkFlagRequired("name"))
	return c
}

// checkListen returns an error unless an address has a host, which may be empty, and a port.
func checkListen(listen string) error {
	if _, _, err := net.SplitHostPort(listen); err != nil {
		return fmt.Errorf("--listen %s: must be \"ADDRESS:PORT\" or \":PORT\"", printable.Quote(listen, 200))
	}
	return nil
}

// runSetup does one step after the other. Each leaves alone what exists, so that an interrupted
// setup is repeated.
func runSetup(c *cobra.Command, o *options, dir, listen string, init ca.InitOptions) error {
	file, err := filepath.Abs(o.config)
	if err != nil {
		return err
	}
	o.config = file
	if dir == "" {
		dir = filepath.Join(filepath.Dir(file), "pki")
	}
	report := setupReport{Config: file, PKIDir: dir}
	done := func(what string, changed bool) error {
		if asksJSON(c) {
			return nil
		}
		verb := "kept"
		if changed {
			verb = "created"
		}
		return printf(c.OutOrStdout(), "%-8s %s\n", verb, what)
	}
	wrote, err := writeConfig(file, dir, listen, init.TrustDomain)
	if err != nil {
		return err
	}
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	made, err := createPKI(cfg, dir, init)
	if err != nil {
		return err
	}
	report.ConfigCreated, report.PKICreated = wrote, made
	noteUnused(c, cfg, listen, init)
	if err := errors.Join(done(file, wrote), done(dir, made)); err != nil {
		return err
	}
	installed, signs, err := installIdentity(cfg, dir)
	if err == nil && cfg.IdentityDir != "" {
		err = done(string(cfg.IdentityDir), installed)
	}
	if err != nil {
		return err
	}
	report.IdentityDir, report.IdentityCreated, report.CanInvite = string(cfg.IdentityDir), installed, signs
	// Not only if the key is new: an earlier setup may have been interrupted before this.
	if (made || installed) && cfg.TLS.KeyFile == config.Path(filepath.Join(dir, "server.key")) {
		if err := ca.ShareKey(dir, stateOf(cfg)); err != nil {
			return err
		}
	}
	if report.Started, err = startService(c.Context(), file, wrote || made || installed); err != nil {
		return err
	}
	next := "invite HOST"
	if !signs {
		cli.Note(c, "there is no issuing CA, so hosts cannot join")
		next = fmt.Sprintf("pki issue HOST --dir %s --out HOST", dir)
	}
	return finishSetup(c, o, report, next)
}

// setupReport is what setup prints as JSON. What was not created already existed.
type setupReport struct {
	Config          string      `json:"config"`
	ConfigCreated   bool        `json:"config_created"`
	PKIDir          string      `json:"pki_dir"`
	PKICreated      bool        `json:"pki_created"`
	IdentityDir     string      `json:"identity_dir,omitempty"`
	IdentityCreated bool        `json:"identity_created"`
	CanInvite       bool        `json:"can_invite"` // hosts can join
	Started         bool        `json:"started"`    // the service
	Check           *checkFacts `json:"check,omitempty"`
}

// noteUnused names the flags that what was kept does not follow.
func noteUnused(c *cobra.Command, cfg receiver.Config, listen string, init ca.InitOptions) {
	note := func(format string, args ...any) { cli.Note(c, format, args...) }
	if c.Flags().Changed("listen") && listen != cfg.Listen {
		note("--listen %s is not used: the configuration says listen = %q", listen, cfg.Listen)
	}
	if c.Flags().Changed("trust-domain") && init.TrustDomain != cfg.Auth.TrustDomain {
		note("--trust-domain %s is not used: the configuration says trust_domain = %q", init.TrustDomain, cfg.Auth.TrustDomain)
	}
	trust, err := gate.LoadTrust(cfg.TrustConfig())
	if err != nil {
		return // the check at the end says why
	}
	for _, name := range init.Names {
		if !slices.Contains(trust.Names(), name) {
			note("%s does not have the name %s: add it with 'receiver pki renew --name', which takes all names", trust.CertFile(), name)
		}
	}
}

// writeConfig writes a configuration if there is none.
func writeConfig(file, pkiDir, listen, trustDomain string) (wrote bool, err error) {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	data := ""
	if filepath.Dir(file) != filepath.Dir(receiver.DefaultConfigFile) {
		data = "data_dir = \"data\"\n"
	}
	if beside, err := filepath.Rel(filepath.Dir(file), pkiDir); err == nil && filepath.IsLocal(beside) {
		pkiDir = beside // relative paths are relative to the configuration
	}
	text := fmt.Sprintf(`# Written by 'receiver setup'. receiver.toml.example lists all keys.
listen = %q
%s
[tls]
cert_file = %q
key_file = %q
client_ca_file = %q
crl_file = %q

[auth]
trust_domain = %q
`, listen, data, filepath.Join(pkiDir, "server.crt"), filepath.Join(pkiDir, "server.key"), filepath.Join(pkiDir, "hosts-ca.crt"),
		filepath.Join(pkiDir, "hosts.crl"), trustDomain)
	dir, err := serviceuser.OpenDir(filepath.Dir(file))
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return true, dir.WriteFile(filepath.Base(file), []byte(text), 0o644)
}

// createPKI creates the CAs, unless the receiver has a certificate.
func createPKI(cfg receiver.Config, dir string, init ca.InitOptions) (made bool, err error) {
	if _, err := os.Stat(string(cfg.TLS.CertFile)); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	switch {
	case cfg.TLS.CertFile != config.Path(filepath.Join(dir, "server.crt")):
		return false, cli.UsageError(fmt.Errorf("the configuration says cert_file = %q, which does not exist: name %s there, or its directory with --pki",
			cfg.TLS.CertFile, filepath.Join(dir, "server.crt")))
	case cfg.Auth.TrustDomain != init.TrustDomain:
		return false, cli.UsageError(fmt.Errorf("the configuration says trust_domain = %q, but --trust-domain is %s: make them the same", cfg.Auth.TrustDomain, init.TrustDomain))
	}
	return true, ca.Init(dir, init)
}

// installIdentity lets the service sign for hosts, if there is a CA for that. It reports whether it
// changed anything, and whether the service can sign.
func installIdentity(cfg receiver.Config, dir string) (changed, signs bool, err error) {
	identity := string(cfg.IdentityDir)
	if identity == "" { // no host may join
		return false, false, nil
	}
	_, missing := os.Lstat(identity)
	if err := pki.CreateIdentityDir(identity); err != nil {
		return false, false, err
	}
	changed, err = ca.InstallIssuing(dir, identity)
	if errors.Is(err, pki.ErrNoIssuing) || errors.Is(err, fs.ErrNotExist) {
		err = nil // there is none, or its key was moved offline after it was installed
	}
	_, serr := gate.OpenIssuer(identity)
	err = errors.Join(err, serviceuser.GiveDir(stateOf(cfg), identity, pki.IdentityLayout(invite.Layout()...)))
	return changed || missing != nil, serr == nil, err
}

// startService enables and starts the service of the default configuration. It reports false where
// no service is managed. A running one is restarted only if something changed.
func startService(ctx context.Context, file string, changed bool) (bool, error) {
	if os.Geteuid() != 0 || file != receiver.DefaultConfigFile || !systemd.IsRunning() {
		return false, nil
	}
	last := "start"
	if changed {
		last = "restart"
	}
	for _, step := range []struct{ action, unit string }{
		{"enable", socketUnit}, {"enable", serviceUnit}, {"start", socketUnit}, {last, serviceUnit},
	} {
		if err := systemd.Control(ctx, step.action, step.unit); err != nil {
			return false, err
		}
	}
	return true, nil
}

// finishSetup checks what was set up, and says what to do next: first, and then for each host.
func finishSetup(c *cobra.Command, o *options, report setupReport, forHosts string) error {
	if asksJSON(c) {
		f, err := examineAll(c, o, true)
		if err == nil {
			report.Check = &f
		}
		return errors.Join(cli.WriteJSON(c.OutOrStdout(), report), err)
	}
	program := "receiver"
	if o.config != receiver.DefaultConfigFile {
		program = "receiver --config " + o.config
	}
	state := "started  the service"
	if !report.Started {
		state = "next     start it: " + program
	}
	if err := printf(c.OutOrStdout(), "%s\nnext     for each host: %s %s\n\n", state, program, forHosts); err != nil {
		return err
	}
	return runCheck(c, o, false, true)
}
