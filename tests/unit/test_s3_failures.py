"""What the failures of S3's client mean, one by one."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from botocore import exceptions as botocore
from botocore.exceptions import ClientError

from holdfast.backends.s3.failures import RedirectedError, reaction
from holdfast.errors import (
    AccessDenied,
    AlreadyExists,
    DeadlineExceeded,
    NotFoundError,
    StorageError,
    StorageFull,
)


def answered(code, status=400, operation="GetObject", headers=None, **said):
    response = {
        "Error": {"Code": code, "Message": "words", **said},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return ClientError(response, operation)


NO_KMS = "User: arn:aws:iam::1:user/x is not authorized to perform: kms:GenerateDataKey on it"
REACTIONS = [
    # error, kind, lasting, what is said
    (answered("PreconditionFailed", 412, "PutObject"), AlreadyExists, False, "taken"),
    (answered("412", 412, "CompleteMultipartUpload"), AlreadyExists, False, "taken"),
    (answered("PreconditionFailed", 412), StorageError, False, "replaced"),
    (answered("ConditionalRequestConflict", 409, "PutObject"), StorageError, False, "Conflict"),
    (answered("NoSuchKey", 404), NotFoundError, False, ""),
    (answered("404", 404, "HeadObject"), NotFoundError, False, ""),
    (answered("NoSuchBucket", 404), StorageError, True, "bucket does not exist"),
    (answered("NoSuchUpload", 404, "UploadPart"), StorageError, False, "NoSuchUpload"),
    (answered("InvalidBucketName"), StorageError, True, "no name of a bucket"),
    (answered("AccessDenied", 403), AccessDenied, False, "s3:GetObject"),
    (answered("403", 403, "HeadObject"), AccessDenied, False, "s3:GetObject"),
    (answered("AccessDenied", 403, "PutObject"), AccessDenied, False, "s3:PutObject"),
    (answered("AccessDenied", 403, "UploadPart"), AccessDenied, False, "s3:PutObject"),
    (answered("AccessDenied", 403, "ListObjectsV2"), AccessDenied, False, "s3:ListBucket"),
    (answered("AccessDenied", 403, "DeleteObject"), AccessDenied, False, "s3:DeleteObject"),
    (answered("AccessDenied", 403, Message=NO_KMS), AccessDenied, False, "kms:GenerateDataKey"),
    (answered("KMS.DisabledException"), AccessDenied, False, "cannot be used"),
    (answered("ExpiredToken"), AccessDenied, False, "expired"),
    (answered("TokenRefreshRequired"), AccessDenied, False, "expired"),
    (answered("InvalidAccessKeyId", 403), AccessDenied, False, "access key"),
    (answered("SignatureDoesNotMatch", 403), AccessDenied, False, "signature"),
    (answered("401", 401), AccessDenied, False, "signature"),
    (answered("PermanentRedirect", 301), StorageError, True, "not served here"),
    (answered("PermanentRedirect", 301, Region="eu-west-1"), StorageError, True, "eu-west-1"),
    (answered("301", 301, headers={"x-amz-bucket-region": "ap-1"}), StorageError, True, "ap-1"),
    (answered("AuthorizationHeaderMalformed", Region="eu-west-1"), StorageError, True, "eu-west"),
    (answered("IllegalLocationConstraintException"), StorageError, True, "not served here"),
    (answered("307", 307), StorageError, True, "not served here"),
    (RedirectedError("example.org"), StorageError, True, "example.org"),
    (answered("RequestTimeTooSkewed", 403), StorageError, True, "clock"),
    (answered("InvalidObjectState", 403), StorageError, True, "archive"),
    (answered("NotImplemented", 501), StorageError, True, "cannot do"),
    (answered("XMinioStorageFull", 507), StorageFull, False, "no room"),
    (answered("QuotaExceeded", 403), StorageFull, False, "no room"),
    (answered("SlowDown", 503), StorageError, False, "SlowDown"),
    (answered("InternalError", 500), StorageError, False, "InternalError"),
    (answered("InternalError", 200), StorageError, False, "InternalError"),
    (answered("RequestTimeout", 400), StorageError, False, "RequestTimeout"),
    (answered("502", 502), StorageError, False, "502"),
    (answered("429", 429), StorageError, False, "429"),
    (answered("BadDigest", 400, "PutObject"), StorageError, False, "BadDigest"),
    (botocore.NoCredentialsError(), AccessDenied, False, "no credentials"),
    (
        botocore.PartialCredentialsError(provider="env", cred_var="x"),
        AccessDenied,
        False,
        "no cred",
    ),
    (botocore.SSOTokenLoadError(error_msg="gone"), AccessDenied, False, "no credentials"),
    (botocore.UnauthorizedSSOTokenError(), AccessDenied, False, "no credentials"),
    (
        botocore.EndpointConnectionError(endpoint_url="https://s3.example.org/b/k?secret=1"),
        StorageError,
        False,
        "s3.example.org cannot be reached",
    ),
    (
        botocore.ConnectTimeoutError(endpoint_url="https://s3.example.org:9000/b"),
        DeadlineExceeded,
        False,
        "s3.example.org:9000 did not answer",
    ),
    (
        botocore.ReadTimeoutError(endpoint_url="https://a.example.org"),
        DeadlineExceeded,
        False,
        "a.ex",
    ),
    (
        botocore.SSLError(endpoint_url="https://s3.example.org", error="self-signed"),
        StorageError,
        False,
        "no safe connection to s3.example.org",
    ),
    (botocore.ParamValidationError(report="bad bucket"), StorageError, True, "bad bucket"),
    (ValueError("Invalid endpoint: nonsense"), StorageError, True, "Invalid endpoint"),
]


@pytest.mark.parametrize(
    ("error", "kind", "lasting", "said"),
    REACTIONS,
    ids=[f"{type(row[0]).__name__} {row[3]} {row[0]}"[:70] for row in REACTIONS],
)
def test_each_failure_says_what_it_means(error, kind, lasting, said):
    found = reaction(error, bucket="bucket")

    assert found is not None
    assert (found.kind, found.lasting) == (kind, lasting)
    assert said in f"{found.why} {found.cure}"
    assert "{" not in found.why.replace("{'region_name'", "")
    assert "secret=1" not in found.why


def test_a_failure_that_is_like_any_other_is_left_to_the_others():
    assert reaction(OSError("the disk"), bucket="bucket") is None


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("soon", None), ("Wed, 21 Oct 2026 07:28:00 -0000", None)]
)
def test_a_server_says_after_how_many_seconds_it_wants_to_be_asked_again(header, seconds):
    found = reaction(answered("SlowDown", 503, headers={"retry-after": header}), bucket="bucket")

    assert found.retry_after == seconds


def test_a_server_says_from_when_on_it_wants_to_be_asked_again():
    soon = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)

    found = reaction(answered("SlowDown", 503, headers={"retry-after": soon}), bucket="bucket")

    assert 0 < found.retry_after <= 3600
