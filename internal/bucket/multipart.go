package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/minio/minio-go/v7"

	"cis490/internal/digest"
)

// Begin implements [Bucket].
func (s *S3) Begin(ctx context.Context, name string) (id string, err error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	err = s.do(ctx, func(ctx context.Context, e *endpoint) (err error) {
		id, err = e.core.NewMultipartUpload(ctx, s.config.Bucket, s.prefix+name, minio.PutObjectOptions{})
		return err
	})
	if err == nil && id == "" {
		err = errors.New("the object store began an upload without an id")
	}
	return id, wrap("begin an upload of", name, err)
}

// PutPart implements [Bucket].
func (s *S3) PutPart(ctx context.Context, name, id string, number int, src io.Reader, size int64, d digest.Digest) (Part, error) {
	if err := CheckName(name); err != nil {
		return Part{}, err
	}
	var part minio.ObjectPart
	body := newAnnouncedBody(src, size)
	err := s.send(ctx, body, func(ctx context.Context, e *endpoint) (err error) {
		options := minio.PutObjectPartOptions{Sha256Hex: d.String(), DisableContentSha256: true}
		part, err = e.core.PutObjectPart(ctx, s.config.Bucket, s.prefix+name, id, number, body, size, options)
		return err
	})
	if err == nil && part.ETag == "" {
		err = errors.New("the object store returned no etag")
	}
	if err != nil {
		return Part{}, wrap(fmt.Sprintf("upload part %d of", number), name, err)
	}
	return Part{Number: number, ETag: part.ETag}, nil
}

// Finish implements [Bucket].
func (s *S3) Finish(ctx context.Context, name, id string, parts []Part) error {
	if err := CheckName(name); err != nil {
		return err
	}
	var named []minio.CompletePart
	for i, p := range parts {
		if i > 0 && p.Number <= parts[i-1].Number {
			return wrap("finish the upload of", name, fmt.Errorf("part %d follows part %d: %w", p.Number, parts[i-1].Number, ErrPart))
		}
		named = append(named, minio.CompletePart{PartNumber: p.Number, ETag: p.ETag})
	}
	if len(named) == 0 {
		return wrap("finish the upload of", name, fmt.Errorf("it has no parts: %w", ErrPart))
	}
	err := s.do(ctx, func(ctx context.Context, e *endpoint) error {
		_, err := e.core.CompleteMultipartUpload(ctx, s.config.Bucket, s.prefix+name, id, named, minio.PutObjectOptions{})
		return err
	})
	return wrap("finish the upload of", name, err)
}

// Abort implements [Bucket].
func (s *S3) Abort(ctx context.Context, name, id string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	err := s.do(ctx, func(ctx context.Context, e *endpoint) error {
		return e.core.AbortMultipartUpload(ctx, s.config.Bucket, s.prefix+name, id)
	})
	if errors.Is(err, ErrNoUpload) {
		return nil
	}
	return wrap("abort the upload of", name, err)
}
