package main

import (
	"strings"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/shipper"
	"cis490/internal/suggestion"
)

// heldEpisodes returns the outbox, whose entries name held episodes.
func heldEpisodes(cfg shipper.Config) cli.NameDir {
	return cli.NameDir{Path: string(cfg.OutboxDir), Name: func(entry string) (string, bool) {
		name, held := outbox.CutHeld(entry)
		return string(name), held
	}}
}

// retiredEpisodes returns the shipped directory, whose entries name retired episodes as 'resend' does.
func retiredEpisodes(cfg shipper.Config) cli.NameDir {
	return cli.NameDir{Path: string(cfg.ShippedDir), Name: func(entry string) (string, bool) {
		// A shell inserts completions without quotes, so the whole name must be harmless.
		_, err := episode.ParseName(strings.ReplaceAll(entry, "~", "-"))
		return entry, err == nil
	}}
}

// findNames returns a function that returns the directory with the names for a completion.
func (o *options) findNames(dir func(shipper.Config) cli.NameDir) func(*cobra.Command, []string) []cli.NameDir {
	return func(*cobra.Command, []string) []cli.NameDir {
		cfg, err := shipper.LoadConfig(o.config)
		if err != nil {
			return nil
		}
		return []cli.NameDir{dir(cfg)}
	}
}

// suggestName returns, in parentheses, a question that suggests the name in dir that was meant, or "".
func suggestName(name string, dir cli.NameDir) string {
	question := suggestion.Question(name, cli.FindNames("", dir))
	if question == "" {
		return ""
	}
	return " (" + question + ")"
}
