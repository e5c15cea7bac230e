"""A blob of a sample. Its format comes from its header, not from its file name.

Nothing here decodes pixels or sound: whether a blob really decodes is found out by ``features``, which decodes each
blob exactly once.
"""

from mm_assets.drops.limits import SnapshotConfig
from mm_assets.errors import MmError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.reasons import Refusal, unexpected
from mm_assets.modalities.table import aspect


def inspect_blob(modality: str, data: bytes, config: SnapshotConfig) -> str | Refusal:
    """The blob's format (``txt``, ``png``, ``wav``, ...), or why it is refused."""
    if not data:
        return Refusal("empty_file", f"{modality} has no bytes")
    ceiling = config.max_bytes(modality)
    if len(data) > ceiling:
        return Refusal("too_large", f"{modality} has {len(data)} bytes; {ceiling} are allowed")
    try:
        return aspect(modality, "header").inspect_header(data, config)
    except (MmError, MemoryError):
        raise
    except Exception as error:
        # One blob must not end a shard.
        return unexpected(f"{modality} {digest_bytes(data)}", error)
