"""The bytes: content-addressed objects and plain keys of one ``s3://bucket/prefix``.

Invariant: an object's key is the digest of its bytes and it is never overwritten; every read of an object verifies
its digest. Plain keys (refs, actions, specs, raw data) are written only under a condition.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from mm_assets.errors import CommitUnknownError, ObjectCorruptError, ObjectMissingError, StoreDeniedError, StoreError
from mm_assets.identity.canonical import CHUNK_BYTES, digest_bytes, digest_file, digest_hex
from mm_assets.store.client import CONFLICT, MISSING, error_code, make_client, translated
from mm_assets.store.embedded import ensure_running

if TYPE_CHECKING:
    from mm_assets.settings import Settings

logger = logging.getLogger(__name__)

MAX_KEY_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyInfo:
    """One listed key: relative to the store's prefix, with its size in bytes and its ETag (without quotes)."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Versioned:
    """Bytes of a plain key with the ETag a conditional write has to name."""

    data: bytes
    etag: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A stream of bytes and, where the bucket keeps versions, which version it is of."""

    body: IO[bytes]
    version_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An object that is there: its size and, where the bucket keeps versions, its version."""

    size_bytes: int
    version_id: str | None


@dataclass(frozen=True, kw_only=True)
class Store:
    """One store; all keys are relative to its prefix. Safe to share between threads.

    ``raw_buckets`` are the other buckets that raw data are read from, by name or by a pattern with ``*``: a drop names
    its objects by URI, and whoever writes a drop must not reach all that the store's credentials reach.
    """

    client: Any
    bucket: str
    prefix: str
    raw_buckets: tuple[str, ...] = ()

    def uri(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return f"s3://{self.bucket}/{self._full(key)}"

    def object_uri(self, digest: str) -> str:
        """URI of the object named ``digest``."""
        return self.uri(object_key(digest))

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    # Plain keys.

    def read_key(self, key: str) -> Versioned | None:
        """The bytes and ETag of a small key, or None if it does not exist.

        Raises:
            StoreError: the key is larger than ``MAX_KEY_BYTES``, or the store failed.
        """
        with translated(self.uri(key)):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self._full(key))
            except ClientError as error:
                if error_code(error) in MISSING:
                    return None
                raise
            if answer["ContentLength"] > MAX_KEY_BYTES:
                raise StoreError(
                    f"{self.uri(key)}: is too large: expected at most {MAX_KEY_BYTES} bytes, "
                    f"got {answer['ContentLength']}."
                )
            return Versioned(data=answer["Body"].read(), etag=answer["ETag"])

    def create_key(self, key: str, data: bytes) -> bool:
        """Writes ``key`` only if it does not exist; False if other bytes are there already.

        Raises:
            CommitUnknownError: the answer was lost and the key could not be read back.
        """
        return self._put_if(key, data, {"IfNoneMatch": "*"})

    def replace_key(self, key: str, data: bytes, etag: str) -> bool:
        """Writes ``key`` only if it still has ``etag``; False if it changed since.

        Raises:
            CommitUnknownError: the answer was lost and the key could not be read back.
        """
        return self._put_if(key, data, {"IfMatch": etag})

    def _put_if(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        # boto3 retries a conditional PUT whose answer was lost and then loses against its own landed write, so
        # after any refusal or lost answer the key is read back: if it holds exactly these bytes, they landed.
        lost: StoreError | None = None
        try:
            with translated(self.uri(key)):
                try:
                    self.client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data, **condition)
                except ClientError as error:
                    if error_code(error) not in CONFLICT | MISSING:
                        raise
                else:
                    return True
        except PermissionError:
            raise
        except StoreError as error:
            lost = error
        try:
            current = self.read_key(key)
        except StoreError as error:
            raise lost or CommitUnknownError(
                f"{self.uri(key)}: the answer to a write was lost and it cannot be read back. Run the partition again."
            ) from error
        if current is not None and current.data == data:
            return True
        if lost is not None:
            raise lost
        return False

    def list_keys(self, prefix: str) -> Iterator[KeyInfo]:
        """Every key below ``prefix``, in the server's order."""
        with translated(self.uri(prefix)):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._full(prefix))
            skip = len(self.prefix) + 1 if self.prefix else 0
            for page in pages:
                for entry in page.get("Contents", []):
                    yield KeyInfo(key=entry["Key"][skip:], size_bytes=entry["Size"], etag=entry["ETag"].strip('"'))

    def list_folders(self, prefix: str) -> Iterator[str]:
        """The names directly below ``prefix`` (which ends with ``/``), without listing what is inside them."""
        with translated(self.uri(prefix)):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._full(prefix), Delimiter="/"
            )
            for page in pages:
                for entry in page.get("CommonPrefixes", []):
                    yield entry["Prefix"][len(self._full(prefix)) :].strip("/")

    def upload_key(self, key: str, path: Path) -> None:
        """Uploads a file of any size to a plain key, unconditionally (raw data, before its ``drop.json``)."""
        with translated(self.uri(key)):
            self.client.upload_file(str(path), self.bucket, self._full(key))

    def open_key(self, key: str, *, first: int = 0, size_bytes: int | None = None) -> IO[bytes]:
        """A forward-only stream of a plain key's bytes, or of ``size_bytes`` from ``first`` on; the caller closes it.

        Raises:
            ObjectMissingError: the key does not exist.
        """
        part = {} if size_bytes is None else {"Range": f"bytes={first}-{first + size_bytes - 1}"}
        with translated(self.uri(key)):
            return self.client.get_object(Bucket=self.bucket, Key=self._full(key), **part)["Body"]

    # Raw data elsewhere: in the store's bucket, or in one of ``raw_buckets``.

    def _require_raw(self, bucket: str, uri: str) -> None:
        if bucket != self.bucket and not any(fnmatchcase(bucket, allowed) for allowed in self.raw_buckets):
            raise StoreDeniedError(
                f"{uri}: raw data are not read from its bucket: expected one of "
                f"{', '.join((self.bucket, *self.raw_buckets))}, got {bucket}. Name it in MM_RAW_BUCKETS."
            )

    def open_uri(
        self, uri: str, *, version_id: str | None = None, first: int = 0, size_bytes: int | None = None
    ) -> "Opened":
        """A forward-only stream of an ``s3://`` object's bytes, or of a part of them; the caller closes its body.

        Raises:
            ObjectMissingError: the object, its version or its bucket does not exist.
            StoreDeniedError: raw data are not read from that bucket.
        """
        bucket, key = split_uri(uri)
        self._require_raw(bucket, uri)
        options = {} if size_bytes is None else {"Range": f"bytes={first}-{first + size_bytes - 1}"}
        if version_id is not None:
            options["VersionId"] = version_id
        with translated(uri):
            answer = self.client.get_object(Bucket=bucket, Key=key, **options)
        return Opened(body=answer["Body"], version_id=_version(answer))

    def find_uri(self, uri: str) -> "Found | None":
        """Size and version of an ``s3://`` object, or None if it or its bucket does not exist.

        Raises:
            StoreDeniedError: raw data are not read from that bucket, or the credentials may not.
        """
        bucket, key = split_uri(uri)
        self._require_raw(bucket, uri)
        try:
            with translated(uri):
                answer = self.client.head_object(Bucket=bucket, Key=key)
        except ObjectMissingError:
            return None
        return Found(size_bytes=int(answer["ContentLength"]), version_id=_version(answer))

    def list_uris(self, uri: str) -> Iterator[str]:
        """The URI of every object at or below ``uri``, sorted.

        Raises:
            ObjectMissingError: the bucket does not exist.
            StoreDeniedError: raw data are not read from that bucket.
        """
        bucket, prefix = split_uri(uri)
        self._require_raw(bucket, uri)
        found: list[str] = []
        with translated(uri):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                found += [entry["Key"] for entry in page.get("Contents", [])]
        folder = prefix if prefix.endswith("/") or not prefix else prefix + "/"
        yield from (f"s3://{bucket}/{key}" for key in sorted(found) if key == prefix or key.startswith(folder))

    # Objects.

    def has_object(self, digest: str) -> bool:
        """Whether the object exists (its bytes are not re-hashed)."""
        return self.object_size(digest) is not None

    def object_size(self, digest: str) -> int | None:
        """Size in bytes of the object, or None if it does not exist."""
        key = object_key(digest)
        with translated(self.uri(key)):
            try:
                return int(self.client.head_object(Bucket=self.bucket, Key=self._full(key))["ContentLength"])
            except ClientError as error:
                if error_code(error) in MISSING:
                    return None
                raise

    def put_bytes(self, data: bytes) -> str:
        """Stores ``data`` and returns its digest. A damaged object of that digest is written again."""
        digest = digest_bytes(data)
        key = object_key(digest)
        with translated(self.uri(key)):
            self.client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data)
        return digest

    def put_file(self, path: Path) -> str:
        """Stores a file (multipart where it is large) and returns its digest; puts damaged bytes right."""
        digest = digest_file(path)
        self.upload_key(object_key(digest), path)
        return digest

    def get_bytes(self, digest: str) -> bytes:
        """The object's bytes, verified.

        Raises:
            ObjectMissingError: there is no such object.
            ObjectCorruptError: its bytes have another digest.
        """
        with self.open_key(object_key(digest)) as body, translated(self.object_uri(digest)):
            data = body.read()
        self._check(digest, digest_bytes(data))
        return data

    def check_object(self, digest: str, *, size_bytes: int | None = None) -> None:
        """Re-hashes an object of any size without keeping it; one of another size than expected is not read.

        Raises:
            ObjectMissingError: there is no such object.
            ObjectCorruptError: its bytes have another digest.
        """
        hasher = hashlib.sha256()
        with translated(self.object_uri(digest)):
            answer = self.client.get_object(Bucket=self.bucket, Key=self._full(object_key(digest)))
            with answer["Body"] as body:
                if size_bytes is not None and answer["ContentLength"] != size_bytes:
                    self._check(digest, f"{answer['ContentLength']} bytes instead of {size_bytes}")
                while chunk := body.read(CHUNK_BYTES):
                    hasher.update(chunk)
        self._check(digest, "sha256:" + hasher.hexdigest())

    def fetch(self, digest: str, folder: Path, name: str | None = None) -> Path:
        """Downloads an object to ``folder/name`` (default: its hex digest), verified; a file there already is reused.

        The file appears under its name only once it is complete and verified.

        Raises:
            ObjectMissingError: there is no such object.
            ObjectCorruptError: its bytes have another digest, or ``name`` is not that of a file in the folder.
        """
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            raise ObjectCorruptError(
                f"object {digest}: {name!r} is not the name of a file: expected one without separators. Correct what "
                "names it."
            )
        path = folder / (name or digest_hex(digest))
        if path.is_file() and digest_file(path) == digest:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file, self.open_key(object_key(digest)) as body:
                actual = _copy(body, file, self.object_uri(digest))
            self._check(digest, actual)
            Path(temporary).replace(path)
        finally:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
        return path

    def _check(self, digest: str, actual: str) -> None:
        if actual != digest:
            raise ObjectCorruptError(
                f"{self.object_uri(digest)}: bytes do not match their name: expected {digest}, got {actual}. "
                "Restore the object, or run the partition that made it again with `--force`."
            )


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _version(answer: Mapping[str, Any]) -> str | None:
    version = answer.get("VersionId")
    return None if version in (None, "null") else str(version)


def object_key(digest: str) -> str:
    """``objects/<aa>/<sha256 hex>``."""
    name = digest_hex(digest)
    return f"objects/{name[:2]}/{name}"


def _copy(body: IO[bytes], file: IO[bytes], uri: str) -> str:
    hasher = hashlib.sha256()
    with translated(uri):
        while chunk := body.read(CHUNK_BYTES):
            hasher.update(chunk)
            file.write(chunk)
    return "sha256:" + hasher.hexdigest()


def open_store(settings: "Settings") -> Store:
    """The configured store, or the embedded one under ``MM_HOME`` (started if it is not running).

    Raises:
        StoreUnreachableError: no server answers. StoreDeniedError: it refuses the credentials.
        ObjectMissingError: the bucket does not exist.
    """
    if settings.is_embedded:
        server = ensure_running(settings.home)
        client = make_client(server.endpoint, {"access_key": server.access_key, "secret_key": server.secret_key})
        return Store(client=client, bucket=server.bucket, prefix=server.prefix, raw_buckets=settings.raw_buckets)
    bucket, prefix = settings.bucket_and_prefix()
    client = make_client(settings.s3_endpoint)
    store = Store(client=client, bucket=bucket, prefix=prefix, raw_buckets=settings.raw_buckets)
    with translated(f"s3://{bucket}"):
        store.client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    return store
