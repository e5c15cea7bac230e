"""What a worker tells its run besides log lines: the digest it committed, or the sentence it failed with."""

from collections.abc import Iterable, Mapping
from typing import Any


def success_message(manifest: str, *, cached: bool) -> dict[str, Any]:
    """The partition was committed."""
    return {"manifest": manifest, "cached": cached}


def failure_message(sentence: str) -> dict[str, Any]:
    """The stage failed; ``sentence`` is what the run shows."""
    return {"error": sentence}


def reported_failure(messages: Iterable[Mapping[str, Any]]) -> str | None:
    """The sentence among a worker's messages, if it sent one."""
    return next((str(message["error"]) for message in messages if "error" in message), None)
