"""S3, and every server that speaks it."""

from holdfast.backends.s3.backend import S3Backend as S3Backend
