package main

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/invite"
	"cis490/internal/pki"
	"cis490/internal/receiver"
	"cis490/internal/revocation"
	"cis490/internal/suggestion"
)

// hostDirs returns the directories whose entries name the hosts of a receiver: archives, and records of
// contacts.
func hostDirs(cfg receiver.Config) []cli.NameDir {
	episodes, _ := cfg.BackendConfig().Paths()
	return append(storedHosts(episodes), cli.NameDir{Path: filepath.Join(string(cfg.IdentityDir), pki.HostsDir), Name: func(entry string) (string, bool) {
		name, ok := strings.CutSuffix(entry, ".json")
		return name, ok && isName(name)
	}})
}

// storedHosts returns the directory of archives, whose entries name hosts.
func storedHosts(episodes string) []cli.NameDir {
	return []cli.NameDir{{Path: episodes, Name: func(entry string) (string, bool) { return entry, isName(entry) }}}
}

func isName(text string) bool {
	_, err := episode.ParseName(text)
	return err == nil
}

// suggestHost returns a question that suggests the host that was meant by an unknown name.
func suggestHost(host string, dirs []cli.NameDir) string {
	return cmp.Or(suggestion.Question(host, cli.FindNames("", dirs...)), "is the name right?")
}

// findHosts returns the directories that name the hosts, for a completion.
func (o *options) findHosts(*cobra.Command, []string) []cli.NameDir {
	cfg, err := receiver.LoadConfig(o.config)
	if err != nil {
		return nil
	}
	return hostDirs(cfg)
}

// findDisabled returns the hosts that are disabled, for a completion.
func (o *options) findDisabled(*cobra.Command, []string, string) []string {
	cfg, err := receiver.LoadConfig(o.config)
	if err != nil {
		return nil
	}
	disabled, err := datadir.DisabledHosts(string(cfg.DataDir))
	if err != nil {
		return nil
	}
	return namesOf(disabled, func(name episode.Name) episode.Name { return name })
}

// findInvited returns the hosts with an open invitation, for a completion.
func (o *options) findInvited(*cobra.Command, []string, string) []string {
	cfg, err := receiver.LoadConfig(o.config)
	if err != nil {
		return nil
	}
	return invitedHosts(string(cfg.IdentityDir))
}

// maxCompletedCertificates is the maximum number of certificates that a completion reads.
const maxCompletedCertificates = 500

// findIssued returns the hosts with a certificate from the directory of the flag --dir, for a
// completion.
func findIssued(c *cobra.Command, _ []string, _ string) []string {
	dir := c.Flag("dir").Value.String()
	if dir == "" {
		return nil
	}
	entry := func(name string) (string, bool) { return name, true }
	records := cli.FindNames("", cli.NameDir{Path: filepath.Join(dir, pki.IssuedDir), Name: entry}, cli.NameDir{Path: recordsFor(dir), Name: entry})
	if len(records) > maxCompletedCertificates {
		return nil
	}
	list, _ := revocation.ListIssued(dir, time.Now(), recordsFor(dir)) // an incomplete list is enough
	return namesOf(list, func(i pki.Issued) episode.Name { return i.Host })
}

// invitedHosts returns the hosts with an open invitation.
func invitedHosts(identity string) []string {
	list, _ := invite.List(identity) // an incomplete list is enough
	list = slices.DeleteFunc(list, func(i invite.Invitation) bool { return i.State(time.Now()) != invite.Open })
	return namesOf(list, func(i invite.Invitation) episode.Name { return i.Host })
}

// namesOf returns the names in a list, sorted, each once.
func namesOf[T any](list []T, name func(T) episode.Name) []string {
	var names []string
	for _, v := range list {
		names = append(names, string(name(v)))
	}
	slices.Sort(names)
	return slices.Compact(names)
}
