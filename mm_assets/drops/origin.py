"""Which source and drop something of a shard came from, by its id or its raw object."""

from collections.abc import Mapping
from typing import Any

from mm_assets.drops.record import drop_prefix

UNKNOWN = "unknown"


def origin_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Source and drop of a sample (``id``), or of a dead letter without an id (``object``)."""
    parts = str(row.get("id") or "").split("/", 2)
    if len(parts) == 3:
        return parts[0], parts[1]
    _, _, inside = str(row.get("object") or "").partition(drop_prefix("", "").split("/")[0] + "/")
    parts = inside.split("/", 2)
    return (parts[0], parts[1]) if len(parts) == 3 else (UNKNOWN, UNKNOWN)
