package cli

import "cmp"

// DescribeHolder describes the process that holds the lock of a daemon, for a status.
func DescribeHolder(holder string, unknown bool, daemon string) string {
	if unknown {
		return "unknown: only root and the " + daemon + "'s user can read the lock"
	}
	return cmp.Or(holder, "no")
}
