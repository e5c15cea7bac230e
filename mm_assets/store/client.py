"""The boto3 client and the translation of its errors into sentences. Nothing else imports boto3."""

import functools
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import HTTPClientError as BotoHTTPClientError
from botocore.loaders import create_loader
from botocore.session import get_session

from mm_assets.errors import (
    MmError,
    ObjectMissingError,
    SettingsError,
    StoreDeniedError,
    StoreError,
    StoreUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Codes with which S3 servers refuse credentials or rights.
DENIED = frozenset(
    {
        "AccessDenied",
        "403",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "AllAccessDisabled",
    }
)
MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
CONFLICT = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


def make_client(endpoint: str | None, credentials: "Mapping[str, str] | None" = None) -> Any:
    """An S3 client; ``credentials`` (``access_key``, ``secret_key``) override the standard AWS chain.

    Retries are boto3's own (standard mode); conditional writes are made safe against them by ``store.objects``.

    Raises:
        SettingsError: the endpoint, the region or the profile is unusable.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=16,
        s3={"addressing_style": "path"} if endpoint else {},
    )
    options: dict[str, Any] = {}
    if credentials:
        options |= {"aws_access_key_id": credentials["access_key"], "aws_secret_access_key": credentials["secret_key"]}
    try:
        session = _new_session()
        if endpoint and session.region_name is None:
            options["region_name"] = "us-east-1"
        return session.client("s3", endpoint_url=endpoint, config=config, **options)
    except (ValueError, BotoCoreError) as error:
        raise SettingsError(
            f"S3 client: cannot be made: {' '.join(str(error).split())}. Correct MM_S3_ENDPOINT or the AWS variables."
        ) from error


def _new_session() -> boto3.Session:
    """A session of its own: boto3's default one keeps the first credentials a process ever saw.

    The descriptions of AWS services are read from disk once per process (0.15 s), not once per session.
    """
    loader = _service_descriptions()
    paths = list(loader.search_paths)
    core = get_session()
    core.register_component("data_loader", loader)
    session = boto3.Session(botocore_session=core)
    # Every session adds boto3's folder of resources, which a client does not read.
    loader.search_paths[:] = paths
    return session


@functools.cache
def _service_descriptions() -> Any:
    return create_loader()


def error_code(error: ClientError) -> str:
    """The S3 error code, or the HTTP status where a HEAD response has no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(uri: str) -> Generator[None]:
    """Turns boto3's errors about ``uri`` into this package's.

    Raises:
        ObjectMissingError: no such key or bucket.
        StoreDeniedError: wrong credentials, or a right is missing.
        StoreUnreachableError: no answer.
        StoreError: anything else the server said.
    """
    try:
        yield
    except ClientError as error:
        raise _refusal(uri, error) from error
    except S3UploadFailedError as error:
        # boto3's transfers wrap the server's answer and mention it only in their text.
        if isinstance(error.__context__, ClientError):
            raise _refusal(uri, error.__context__) from error
        raise StoreError(f"{uri}: {error}.") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StoreDeniedError(f"{uri}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.") from error
    except (BotoConnectionError, BotoHTTPClientError) as error:
        raise StoreUnreachableError(
            f"{uri}: the store does not answer. Check MM_S3_ENDPOINT, the network, or start it with `mm store start`."
        ) from error
    except BotoCoreError as error:
        raise StoreError(f"{uri}: {error}.") from error


def _refusal(uri: str, error: ClientError) -> MmError:
    code = error_code(error)
    if code in MISSING:
        return ObjectMissingError(f"{uri}: does not exist.")
    if code == "NoSuchBucket":
        return ObjectMissingError(f"{uri}: its bucket does not exist. Create it, or correct the URI or MM_STORE_URI.")
    if code in DENIED:
        return StoreDeniedError(
            f"{uri}: the store refused {error.operation_name} ({code}). "
            "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the identity's rights."
        )
    return StoreError(f"{uri}: the store answered {code or 'an error'} to {error.operation_name}.")
