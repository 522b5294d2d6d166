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

// heldEpisodes is the outbox as a directory that names held episodes.
func heldEpisodes(cfg shipper.Config) cli.NameDir {
	return cli.NameDir{Path: string(cfg.OutboxDir), Name: func(entry string) (string, bool) {
		name, held := outbox.CutHeld(entry)
		return string(name), held
	}}
}

// retiredEpisodes is the shipped directory as one that names retired episodes, as 'resend' takes them.
func retiredEpisodes(cfg shipper.Config) cli.NameDir {
	return cli.NameDir{Path: string(cfg.ShippedDir), Name: func(entry string) (string, bool) {
		// A shell inserts what it completes without quotes, so the whole of it must be harmless.
		_, err := episode.ParseName(strings.ReplaceAll(entry, "~", "-"))
		return entry, err == nil
	}}
}

// find returns where to find names for a completion.
func (o *options) find(dir func(shipper.Config) cli.NameDir) func(*cobra.Command, []string) []cli.NameDir {
	return func(*cobra.Command, []string) []cli.NameDir {
		cfg, err := shipper.LoadConfig(o.config)
		if err != nil {
			return nil
		}
		return []cli.NameDir{dir(cfg)}
	}
}

// questionName asks in parentheses whether one of a directory's names is meant by another, or returns "".
func questionName(name string, dir cli.NameDir) string {
	question := suggestion.Question(name, cli.FindNames("", dir))
	if question == "" {
		return ""
	}
	return " (" + question + ")"
}
