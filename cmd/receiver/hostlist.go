package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fleet"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/sharedhosts"
)

// hostList is the list of disabled hosts, of one receiver or of all that share its bucket.
type hostList struct {
	datadir.HostList
	bucket bucket.Bucket // nil with a store on a disk
}

func openHostList(c *cobra.Command, cfg receiver.Config) (hostList, error) {
	list := hostList{HostList: datadir.HostList{Dir: string(cfg.DataDir), Holder: cli.LockHolder(c.CommandPath())}}
	if cfg.Store.Kind != receiver.StoreOnS3 {
		return list, nil
	}
	in, err := bucket.Open(cfg.Store.S3)
	if err != nil {
		return list, cli.UsageError(fmt.Errorf("store.s3: %w", err))
	}
	list.bucket, list.Shared = in, sharedhosts.NewList(in)
	if _, err = s3backend.ReadStoreID(c.Context(), in); err == nil { // a list in the wrong bucket would do nothing
		err = batchlog.CheckHere(c.Context(), in)
	}
	if _, moved := errors.AsType[*batchlog.MovedError](err); moved {
		err = cli.UsageError(err)
	}
	return list, err
}

// restoreList reads the list of all receivers again if its copy in data_dir is damaged.
func restoreList(c *cobra.Command, cfg receiver.Config) error {
	if _, err := datadir.CountDisabled(string(cfg.DataDir)); cfg.Store.Kind != receiver.StoreOnS3 || !errors.Is(err, datadir.ErrDisabledList) {
		return nil
	}
	list, err := openHostList(c, cfg)
	if err != nil {
		return err
	}
	if err := list.Restore(c.Context()); err != nil {
		return err
	}
	cli.Note(c, "disabled-hosts.json was damaged, and was read again from the bucket")
	return nil
}

// forgetReports removes what hosts have reported, unless they could not be removed.
func (l hostList) forgetReports(ctx context.Context, hosts []episode.Name, err error) error {
	if err != nil {
		return nil
	}
	if l.bucket != nil {
		err = sharedhosts.ForgetReports(ctx, l.bucket, hosts...)
	}
	data, oerr := durable.Open(l.Dir)
	if l.bucket != nil && errors.Is(oerr, fs.ErrNotExist) {
		return err // no receiver has run on this machine
	}
	if oerr != nil {
		return errors.Join(err, oerr)
	}
	defer data.Close()
	return errors.Join(err, fleet.Forget(data, hosts...))
}
