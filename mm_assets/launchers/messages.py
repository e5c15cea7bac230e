"""What a worker tells its run besides log lines: the digest it committed, or the error it failed with."""

from collections.abc import Iterable, Mapping
from typing import Any

from mm_assets import errors
from mm_assets.errors import LaunchError, MmError


def success_message(manifest: str, *, cached: bool) -> dict[str, Any]:
    """The partition was committed."""
    return {"manifest": manifest, "cached": cached}


def failure_message(sentence: str, error: Exception) -> dict[str, Any]:
    """The stage failed; ``sentence`` is what the run shows, the class decides what the run does about it."""
    return {"error": sentence, "class": type(error).__name__}


def reported_failure(messages: Iterable[Mapping[str, Any]]) -> MmError | None:
    """The error among a worker's messages, of the class it had there; ``LaunchError`` if that is not an ``MmError``."""
    for message in messages:
        if "error" in message:
            kind = getattr(errors, str(message.get("class")), None)
            if not (isinstance(kind, type) and issubclass(kind, MmError)):
                kind = LaunchError
            return kind(str(message["error"]))
    return None
