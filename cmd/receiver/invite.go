package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/gate"
	"cis490/internal/hosts"
	"cis490/internal/invite"
	"cis490/internal/pki"
	"cis490/internal/receiver"
	"cis490/internal/suggestion"
)

// inviteOptions are the flags of "receiver invite".
type inviteOptions struct {
	valid  config.Duration
	again  bool
	urls   []string
	list   bool
	revoke string
	json   bool
}

// inviteCommand returns "receiver invite".
func inviteCommand(o *options) *cobra.Command {
	i := inviteOptions{valid: config.Duration(invite.DefaultValid)}
	c := &cobra.Command{
		Use:   "invite {HOST | --list | --revoke HOST}",
		Short: "Let a host join",
		Long: `Invite prints the line to run on a host that has the shipper installed. HOST is
the name that the host will have here.

The token in that line is a secret until the host has joined: whoever has it can
get a certificate as HOST, once. It expires, ten wrong guesses end it, and a new
one for the same host replaces it. The receiver keeps only its hash.

A host that is known needs --again, for example after its disk was replaced. Its
old certificates end when the new one is first used, or with a store in a bucket
as soon as it is issued.`,
		Example: `  sudo receiver invite lab-07
  sudo receiver invite lab-07 --again --valid 2h
  sudo receiver invite --list`,
		Args:              func(c *cobra.Command, args []string) error { return i.validateFlags(c, args) },
		ValidArgsFunction: cli.CompleteNames(true, o.findHosts),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return runInvite(c, o, episode.Name(args[0]), i)
			}
			return runInvitations(c, o, i)
		},
	}
	c.Flags().TextVar(&i.valid, "valid", i.valid, "make the token valid for a `DURATION`")
	c.Flags().BoolVar(&i.again, "again", false, "let a known host join again")
	c.Flags().StringSliceVar(&i.urls, "url", nil, "`URL` of the receiver (default: from its certificate)")
	c.Flags().BoolVar(&i.list, "list", false, "list the invitations")
	c.Flags().StringVar(&i.revoke, "revoke", "", "end the open invitations of a `HOST`")
	c.Flags().BoolVar(&i.json, "json", false, "print JSON")
	cli.CompleteFlagFrom(c, "revoke", o.findInvited)
	return c
}

func (i inviteOptions) validateFlags(c *cobra.Command, args []string) error {
	chosen := len(args)
	for _, flag := range []string{"list", "revoke"} {
		if c.Flags().Changed(flag) {
			chosen++
		}
	}
	if chosen != 1 {
		return errors.New("requires exactly one of HOST, --list and --revoke HOST")
	}
	for _, url := range i.urls {
		if _, err := invite.Address(url); err != nil {
			return fmt.Errorf("--url %s: %w", url, err)
		}
	}
	if len(args) == 0 {
		return nil
	}
	if err := hostArg(c, args); err != nil {
		return err
	}
	return invite.CheckValid(i.valid.Std())
}

// runInvite creates an invitation.
func runInvite(c *cobra.Command, o *options, host episode.Name, i inviteOptions) error {
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	urls := i.urls
	if len(urls) == 0 {
		at := findAddress(c.Context(), o.config, cfg.Listen)
		if urls, err = receiverURLs(cfg, at.Address); err != nil {
			return err
		}
	}
	if err := invite.CheckURLs(urls); err != nil {
		return cli.UsageError(fmt.Errorf("%w: choose some with --url", err))
	}
	if err := cli.BecomeServiceUser(c, stateOf(cfg)); err != nil {
		return err
	}
	issuer, err := openIssuer(cfg)
	if err != nil {
		return err
	}
	if err := checkInvited(cfg, host, i.again); err != nil {
		return err
	}
	book, err := invite.OpenBook(string(cfg.IdentityDir), cli.LockHolder("receiver invite"))
	if err != nil {
		return err
	}
	defer book.Close()
	made, secret, err := book.Create(c.Context(), host, invite.CreateOptions{Valid: i.valid.Std(), Again: i.again}, time.Now())
	if err != nil {
		return err
	}
	token := invite.Token{
		Host: host, URLs: urls, CA: issuer.RootHash(), ID: made.ID, Secret: secret, Created: made.Created, Expires: made.Expires,
	}
	return printInvitation(c, token, i.json)
}

// openIssuer loads the issuing CA, to see whether the receiver can sign.
func openIssuer(cfg receiver.Config) (*gate.Issuer, error) {
	issuer, err := gate.OpenIssuer(string(cfg.IdentityDir))
	if errors.Is(err, pki.ErrNoIssuing) {
		err = fmt.Errorf("%w: run 'receiver setup', or issue the certificate with 'receiver pki issue'", err)
	}
	return issuer, err
}

// checkInvited returns an error for a host that is disabled, or that is known and was not invited
// again.
func checkInvited(cfg receiver.Config, host episode.Name, again bool) error {
	list, _, err := listHosts(cfg, time.Now())
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the receiver may not have run yet
		return err
	}
	at := slices.IndexFunc(list, func(h hosts.Host) bool { return h.Name() == host })
	if at < 0 {
		return nil
	}
	if list[at].State == datadir.HostDisabled {
		return fmt.Errorf("host %s is disabled and could not join: first run 'receiver hosts enable %s'", host, host)
	}
	known := list[at].KnownBy()
	if known == "" || again {
		return nil
	}
	return fmt.Errorf("host %s is known: %s; to replace its certificate run 'receiver invite %s --again', or choose another name for a new machine", host, known, host)
}

// receiverURLs returns the URLs of the names in the receiver's certificate. Names that lead back to
// the machine itself, such as localhost, are used only if there are no others.
func receiverURLs(cfg receiver.Config, address string) ([]string, error) {
	trust, err := gate.LoadTrust(cfg.TrustConfig())
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return nil, cli.UsageError(fmt.Errorf("listen = %q has no port that hosts can know: give the receiver's URL with --url", address))
	}
	var urls, local []string
	for _, name := range trust.Names() {
		url := "https://" + net.JoinHostPort(name, port)
		if config.IsLoopback(name) {
			local = append(local, url)
			continue
		}
		urls = append(urls, url)
	}
	if len(urls) == 0 {
		urls = local
	}
	if len(urls) == 0 {
		return nil, cli.UsageError(errors.New("the receiver's certificate has no name: give the receiver's URL with --url"))
	}
	return urls, nil
}

// printedInvitation is what invite prints as JSON.
type printedInvitation struct {
	Host    episode.Name `json:"host_id"`
	ID      string       `json:"id"`
	Expires time.Time    `json:"expires"`
	URLs    []string     `json:"urls"`
	Token   string       `json:"token"`
}

// listedInvitation is an object of --list.
type listedInvitation struct {
	invite.Invitation
	State invite.State `json:"state"`
}

// printInvitation prints the line for the host alone on stdout, so that a script can use it.
func printInvitation(c *cobra.Command, t invite.Token, asJSON bool) error {
	if asJSON {
		return cli.WriteJSON(c.OutOrStdout(), printedInvitation{t.Host, t.ID, t.Expires, t.URLs, t.String()})
	}
	fmt.Fprintf(c.ErrOrStderr(), "Run this on %s, once, before %s UTC. The token is a secret until then.\nThe host connects to %s.\n",
		t.Host, t.Expires.UTC().Format("2006-01-02 15:04"), strings.Join(t.URLs, " or "))
	return printf(c.OutOrStdout(), "sudo shipper join %s\n", t)
}

// runInvitations lists or revokes invitations.
func runInvitations(c *cobra.Command, o *options, i inviteOptions) error {
	cfg, err := o.openDataDir(c)
	if err != nil {
		return err
	}
	if _, err := openIssuer(cfg); err != nil {
		return err
	}
	book, err := invite.OpenBook(string(cfg.IdentityDir), cli.LockHolder("receiver invite"))
	if err != nil {
		return err
	}
	defer book.Close()
	now := time.Now()
	if i.revoke == "" {
		list, err := book.List()
		if i.json {
			return errors.Join(printInvitationsJSON(c.OutOrStdout(), list, now), err)
		}
		return errors.Join(printInvitations(c.OutOrStdout(), list, now), err)
	}
	revoked, err := book.Revoke(c.Context(), i.revoke, now)
	if err == nil && len(revoked) == 0 {
		question := ""
		if q := suggestion.Question(i.revoke, invitedHosts(string(cfg.IdentityDir))); q != "" {
			question = " (" + q + ")"
		}
		return fmt.Errorf("%s has no open invitation%s; see 'receiver invite --list'", i.revoke, question)
	}
	if i.json {
		return errors.Join(printInvitationsJSON(c.OutOrStdout(), revoked, now), err)
	}
	for _, r := range revoked {
		err = errors.Join(err, printf(c.OutOrStdout(), "%s: invitation %s revoked\n", r.Host, r.ID))
	}
	return err
}

func printInvitationsJSON(w io.Writer, list []invite.Invitation, now time.Time) error {
	for _, i := range list {
		i.SecretSHA256 = "" // is left out
		if err := cli.WriteJSON(w, listedInvitation{i, i.State(now)}); err != nil {
			return err
		}
	}
	return nil
}

// printInvitations prints the name last, since it may be long.
func printInvitations(w io.Writer, list []invite.Invitation, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STATE\tEXPIRES\tID\tHOST")
	for _, i := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", i.State(now), i.Expires.UTC().Format("2006-01-02 15:04"), i.ID, i.Host)
	}
	return table.Flush()
}
