"""A blob of a sample. Its format comes from its header, not from its file name.

Nothing here decodes pixels or sound: whether a blob really decodes is found out by ``features``, which decodes each
blob exactly once.
"""

from mm_assets.drops.limits import SnapshotConfig
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import aspect


def inspect_blob(modality: str, data: bytes, config: SnapshotConfig) -> str | Refusal:
    """The blob's format (``txt``, ``png``, ``wav``, ...), or why it is refused."""
    if not data:
        return Refusal("empty_file", f"{modality} has no bytes")
    ceiling = config.max_bytes(modality)
    if len(data) > ceiling:
        return Refusal("too_large", f"{modality} has {len(data)} bytes; {ceiling} are allowed")
    return aspect(modality, "header").inspect_header(data, config)
