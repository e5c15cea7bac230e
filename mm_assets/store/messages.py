"""Where a worker's messages to its run travel: small plain keys below ``pipes/``, deleted once they were read.

They are the only keys this package ever deletes; nothing refers to them.
"""

from mm_assets.store.client import translated
from mm_assets.store.objects import Store

FOLDER = "pipes/"


def bucket_key(store: Store, key: str) -> str:
    """``key`` as the bucket knows it, for a program that has no store of its own."""
    return store.uri(key).removeprefix(f"s3://{store.bucket}/")


def delete_messages(store: Store, prefix: str) -> int:
    """Deletes all messages below ``prefix`` and returns how many there were.

    Raises:
        ValueError: ``prefix`` is not below ``pipes/``.
    """
    if not prefix.startswith(FOLDER) or len(prefix) == len(FOLDER):
        raise ValueError(f"{prefix}: is not a folder of messages: expected {FOLDER}<run id>/...")
    keys = [info.key for info in store.list_keys(prefix.rstrip("/") + "/")]
    with translated(store.uri(prefix)):
        for key in keys:
            store.client.delete_object(Bucket=store.bucket, Key=bucket_key(store, key))
    return len(keys)
