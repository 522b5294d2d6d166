package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"
)

// CheckSettings returns an error if the bucket keeps what was removed or replaced, or forbids to.
func (s *S3) CheckSettings(ctx context.Context) error {
	var versioning, lock string
	err := s.do(ctx, func(ctx context.Context, e *endpoint) error {
		v, err := e.core.GetBucketVersioning(ctx, s.config.Bucket)
		versioning = v.Status
		return absentSetting(err)
	})
	if err != nil {
		return fmt.Errorf("read the versioning of the bucket, which needs s3:GetBucketVersioning: %w", err)
	}
	if versioning != "" {
		return fmt.Errorf("bucket %s has versioning (%s), which keeps each removed object: use a bucket that never had it", s.config.Bucket, versioning)
	}
	err = s.do(ctx, func(ctx context.Context, e *endpoint) error {
		enabled, _, _, _, err := e.core.GetObjectLockConfig(ctx, s.config.Bucket)
		lock = enabled
		return absentSetting(err)
	})
	if err != nil {
		return fmt.Errorf("read the object lock of the bucket, which needs s3:GetBucketObjectLockConfiguration: %w", err)
	}
	if lock != "" {
		return fmt.Errorf("bucket %s has object lock, so that nothing temporary can be removed: use a bucket without it", s.config.Bucket)
	}
	return nil
}

// absentSetting returns nil for an error that says that a bucket or an engine does not have a setting.
func absentSetting(err error) error {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return err
	}
	switch response.Code {
	case "ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "VersioningNotConfigured", minio.NotImplemented:
		return nil
	}
	if response.StatusCode == http.StatusNotImplemented || response.StatusCode == http.StatusMethodNotAllowed {
		return nil
	}
	return err
}
