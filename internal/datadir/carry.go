package datadir

import (
	"context"
	"fmt"

	"cis490/internal/durable"
)

// CarryDisabled adds the list of disabled hosts in data to that of the bucket into which the store moves. A
// host that is disabled in either list is disabled afterwards. The store must have moved away already, so that
// no command can change the list in data any more: see [MoveAway].
func CarryDisabled(ctx context.Context, data *durable.Dir, to SharedList, holder string) error {
	lock, err := data.WaitLock(ctx, disabledLock, holder)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	own, _, err := loadDisabled(data)
	if err != nil {
		return err
	}
	own.shared = SharedVersion{} // of another bucket, in which the store was before
	if _, err = changeVersion(ctx, to, own, nil, func(*hostList) bool { return false }); err != nil {
		return fmt.Errorf("carry the list of disabled hosts: %w", err)
	}
	return nil
}

// ReceiveDisabled adds the list of disabled hosts in a bucket to the one in data, into which the store moves.
// The bucket must be fenced already, so that its list can no longer change. newest is the newest version of
// that list, and number is its number, or 0 if there is none.
func ReceiveDisabled(ctx context.Context, data *durable.Dir, number int64, newest []byte, holder string) error {
	var from hostList
	if number > 0 {
		var err error
		if from, err = parseVersion(number, newest); err != nil {
			return fmt.Errorf("carry the list of disabled hosts: %w", err)
		}
	}
	return changeDisabled(ctx, data, holder, func(list *hostList) bool {
		wasShared := list.shared != SharedVersion{}
		list.shared = SharedVersion{}
		return list.adopt(from) || wasShared
	})
}
