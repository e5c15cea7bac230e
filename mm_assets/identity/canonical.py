"""Canonical JSON and digests.

Invariant: nothing here reads a clock, a host name, an environment variable or dict order, so the same value has
the same digest on every machine. A value with no stable encoding raises; it is never passed through ``str``.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import rfc8785

from mm_assets.errors import IdentityError

Json: TypeAlias = "None | bool | int | float | str | Sequence[Json] | Mapping[str, Json]"

CHUNK_BYTES = 1 << 20


def to_json(value: object) -> Json:
    """``value`` as plain JSON: frozen dataclasses become objects, tuples become arrays.

    Raises:
        IdentityError: a value (or a nested one) has no stable encoding.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_string_key(key): to_json(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in cast("Sequence[object]", value)]
    raise IdentityError(
        f"{type(value).__name__} value {value!r}: has no stable encoding: expected JSON values, dataclasses or "
        "tuples. Convert it before it enters an action."
    )


def _string_key(key: object) -> str:
    if not isinstance(key, str):
        raise IdentityError(f"mapping key {key!r}: has no stable encoding: expected str, got {type(key).__name__}.")
    return key


def canonical_json(value: object) -> bytes:
    """RFC 8785 bytes of ``value``.

    Raises:
        IdentityError: a value has no stable encoding (also NaN, infinities and integers beyond 2**53).
    """
    try:
        return rfc8785.dumps(cast("dict[str, object]", to_json(value)))  # pyright: ignore[reportArgumentType]
    except rfc8785.CanonicalizationError as error:
        raise IdentityError(f"value: has no canonical JSON: {error}.") from error


def digest_bytes(data: bytes | memoryview) -> str:
    """``sha256:<64 hex>`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """``sha256:<64 hex>`` of a file, read in chunks."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: object) -> str:
    """Digest of the canonical JSON of ``value``."""
    return digest_bytes(canonical_json(value))


def digest_hex(digest: str) -> str:
    """The 64 hex digits of ``sha256:<hex>``.

    Raises:
        IdentityError: ``digest`` is not of that form.
    """
    algorithm, _, hexadecimal = digest.partition(":")
    if algorithm != "sha256" or len(hexadecimal) != 64 or not set(hexadecimal) <= set("0123456789abcdef"):
        raise IdentityError(f"digest {digest!r}: is malformed: expected sha256:<64 lower-case hex digits>.")
    return hexadecimal
