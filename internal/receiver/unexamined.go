package receiver

import (
	"context"
	"errors"
	"time"

	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// unexamined answers for an archive that cannot be examined: a file without permissions,
// or a disk that fails as a whole. Nothing says that the archive is lost. "damaged" and
// "absent" would have its host send it again, into a PUT that meets the same obstacle. So
// it is present or divergent by the digest that is known, and never verified, so that its
// host keeps its copy.
//
// Where no digest is known, the answer is divergent, with a digest of zeros: the host then
// keeps its copy, sends nothing of its own accord, and reports the episode. To say
// "present" would claim what nobody knows, and a person may delete by that.
func unexamined(h wire.Holding, o store.Object, c wire.Claim) wire.Holding {
	o.VerifiedAt = time.Time{}
	h = holdingOf(h, o, c)
	h.Unreadable, h.Undecodable = true, false
	if o.Digest.IsZero() {
		h.ReceivedAt = nil
	}
	return h
}

// addRows completes answers of [unexamined] for which no digest is known with what their
// rows say. It reads the index once for all of them, and is paced as other searches are.
func (r *Receiver) addRows(ctx context.Context, host episode.Name, claims []wire.Claim, found []wire.Holding) error {
	unknown := map[episode.Name][]int{}
	for i, h := range found {
		if h.Unreadable && h.Digest.IsZero() {
			unknown[h.Episode] = append(unknown[h.Episode], i)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	end, err := r.search.begin(ctx, host)
	if err != nil {
		return err
	}
	defer end()
	in, err := r.data.Open(IndexFile)
	if err != nil {
		return err
	}
	defer in.Close()
	for row, err := range index.Rows(in) {
		if _, bad := errors.AsType[*index.LineError](err); bad {
			continue // 'receiver index verify' tells of it
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if row.Host != host {
			continue
		}
		for _, i := range unknown[row.Episode] {
			o := store.Object{Size: row.Size, Digest: row.SHA256, ReceivedAt: row.ReceivedAt}
			found[i] = unexamined(found[i], o, claims[i])
		}
	}
	return nil
}
