"""Whole stores as bytes, damage done to them, and releases advanced in the test's own process."""

import lzma
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from mm_assets.launchers.environment import stage_environment
from mm_assets.materialize import Workspace, partitions_of
from mm_assets.pipeline import ASSETS
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store

Contents = Mapping[str, bytes]

#: A drop of a few samples passes these; each gate that is off says why.
LENIENT_PROMOTION = """\
schema: mm.thresholds/2
promote_to: production
evidence: {min_samples: 1}
overall: {disabled: a few samples teach nothing}
slices: {disabled: a few samples teach nothing}
calibration: {disabled: a few samples teach nothing}
corruptions: {disabled: a few samples teach nothing}
retrieval: {disabled: a few samples teach nothing}
production: {confidence: 0.95, min_samples: 1, max_loss: 0.2}
"""


def read_contents(path: Path) -> dict[str, bytes]:
    """Keys and bytes of a ``.tar.xz``."""
    with lzma.open(path) as data, tarfile.open(fileobj=data) as tar:
        return {member.name: _bytes_of(tar, member) for member in tar}


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def dump_store(store: Store) -> dict[str, bytes]:
    """Every key of a store and its bytes."""
    return {info.key: store.open_key(info.key).read() for info in store.list_keys("")}


def load_store(store: Store, contents: Contents) -> None:
    """Writes every key into a store."""
    for key, data in contents.items():
        write(store, key, data)


def write(store: Store, key: str, data: bytes) -> None:
    """Writes a key past all that protects it."""
    store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}", Body=data)


def delete(store: Store, key: str) -> None:
    """Deletes a key."""
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}")


def flip_byte(store: Store, key: str) -> None:
    """Changes one byte in the middle; the size stays."""
    data = bytearray(store.open_key(key).read())
    data[len(data) // 2] ^= 0xFF
    write(store, key, bytes(data))


def advance(workspace: Workspace, release: str, assets: Iterable[str] | None = None) -> dict[str, int]:
    """Materializes and checks assets of a release in this process; returns how many partitions of each were computed.

    A failed check ends it with the check's sentence.
    """
    computed: dict[str, int] = {}
    for name in ASSETS if assets is None else assets:
        environment = stage_environment() if ASSETS[name].is_launched else {}
        for partition in partitions_of(workspace.spec(release), ASSETS[name]):
            committed = workspace.run(name, partition, environment=environment)
            computed[name] = computed.get(name, 0) + (not committed.cached)
            record = workspace.check(name, partition)
            assert record.passed, f"{name} {partition.path}: {record.failures}"
    return computed


def only(release: str) -> Partition:
    """The partition of a release-level asset."""
    return Partition(release=release)
