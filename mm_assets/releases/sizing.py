"""How many shards a release gets: as many as the size of its drops asks for, within what they can be divided into."""

from collections.abc import Sequence

from mm_assets.drops.record import Drop

#: A shard is one run, one download and what a failure costs: minutes of decoding, not seconds and not hours.
TARGET_SHARD_BYTES = 1 << 30
#: A drop of less than a few of these still gets several shards, so that the cores of one machine have work.
SMALL_SHARD_BYTES, SMALL_SHARDS = 16 << 20, 4


def choose_num_shards(drops: Sequence[Drop], *, cap: int, target_bytes: int = TARGET_SHARD_BYTES) -> int:
    """Shards of about ``target_bytes``, and a few of ``SMALL_SHARD_BYTES`` or more where that makes fewer.

    They are at least one, at most ``cap``, and no more than there are tars.

    A tar is read as a whole, so more shards than tars would be empty; rows of an index are dealt one by one.

    Args:
        drops: What the release is made from.
        cap: Shard keys of the deployment.
        target_bytes: What a shard should hold.
    """
    size = sum(entry.size_bytes for drop in drops for entry in drop.objects)
    wanted = max(-(-size // target_bytes), min(SMALL_SHARDS, size // SMALL_SHARD_BYTES))
    if all(drop.format == "webdataset" for drop in drops):
        wanted = min(wanted, sum(len(drop.tars) for drop in drops))
    return max(1, min(wanted, cap))
