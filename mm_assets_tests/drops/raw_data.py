"""Makes raw data for tests of the snapshot: small real files, tars and drops."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from PIL import Image

from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.drops.collection import Collection
from mm_assets.drops.create import create_drop, push_drop
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import Drop, DropObject
from mm_assets.drops.samples import Rejection, Sample, VerifiedReader
from mm_assets.drops.tar import read_tar
from mm_assets.identity.canonical import digest_bytes
from mm_assets.materialize import Workspace, packaged_rules
from mm_assets.releases.opening import open_release
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.settings import Settings
from mm_assets.snapshot.validate import SUITE, validate_snapshot
from mm_assets.store.action import Action
from mm_assets.store.commit import Committed
from mm_assets.store.manifest import Manifest, Partition
from mm_assets.store.objects import Store


def png(width: int = 8, height: int = 8, shade: int = 0) -> bytes:
    """A real PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (shade % 256, 80, 120)).save(file, "PNG")
    return file.getvalue()


def huge_png(side: int = 30_000) -> bytes:
    """A valid PNG of ``side`` x ``side`` black one-bit pixels, a few hundred kB at most, built row by row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeeze = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join([*(squeeze.compress(row) for _ in range(side)), squeeze.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def sound(kind: str = "WAV", seconds: float = 0.05, rate: int = 8000) -> bytes:
    """A real sound file."""
    file = io.BytesIO()
    wave = 0.1 * np.sin(np.arange(int(seconds * rate)) / 5)
    soundfile.write(file, wave, rate, format=kind)
    return file.getvalue()


def lying_wav() -> bytes:
    """A WAV whose header declares a hundred times the sound it has."""
    data = bytearray(sound())
    place = data.index(b"data") + 4
    size = struct.unpack_from("<I", data, place)[0]
    struct.pack_into("<I", data, place, size * 100)
    return bytes(data)


def tar_bytes(members: Sequence[tuple[str, bytes] | tarfile.TarInfo]) -> bytes:
    """A tar of (name, bytes) members; a bare header makes a member without data."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


def read_one_tar(
    data: bytes, folder: Path, config: SnapshotConfig | None = None, *, name: str = "a.tar"
) -> list[Sample | Rejection]:
    """What one tar leads to, by id."""
    entry = DropObject(key=name, size_bytes=len(data), sha256=digest_bytes(data).removeprefix("sha256:"))
    drop = drop_of("webdataset", [entry])
    with Collection(folder, config or SnapshotConfig()) as found:
        read_tar(VerifiedReader(io.BytesIO(data), entry, name), drop, name, found)
        return [made for _, made in found.read_back()]


def drop_of(kind: Literal["webdataset", "index"], objects: list[DropObject]) -> Drop:
    """A drop record of these objects."""
    return Drop(
        schema="mm.drop/1", source="s", drop="d", captured_from=None, captured_to=None, format=kind, objects=objects,
        annotation={},
    )  # fmt: skip


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """The header of a link member."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def make_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder with ``files``."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def jsonl(*rows: Mapping[str, Any]) -> bytes:
    """An index of ``rows``."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def deliver(store: Store, folder: Path, *, source: str = "src", drop: str = "d1") -> None:
    """Creates and pushes the drop in ``folder``."""
    create_drop(folder, source, drop)
    push_drop(store, folder)


def open_test_release(
    store: Store,
    *drops: tuple[str, str],
    release: str = "r1",
    num_shards: int = 1,
    config: SnapshotConfig | None = None,
    seed: int = 1,
) -> ReleaseSpec:
    """A release over ``drops`` whose configuration has a snapshot section only, judged by the packaged rules."""
    return open_release(
        store,
        release=release,
        drops=list(drops),
        policy={"name": "all", "sql": "true"},
        rules={name: store.put_bytes(data) for name, data in packaged_rules().items()},
        configuration={"name": "test", "snapshot": asdict(config or SnapshotConfig())},
        encoder={"kind": "none", "digest": digest_bytes(b"none")},
        seed=seed,
        num_shards=num_shards,
    )


def snapshot_action(store: Store, spec: ReleaseSpec, shard: str, settings: Settings) -> Action:
    """What one shard's snapshot would be made from now."""
    return Workspace(settings, store).resolve("snapshot", Partition(release=spec.release, shard=shard), {})


def freeze(store: Store, spec: ReleaseSpec, shard: str, settings: Settings) -> Committed:
    """Materializes one shard's snapshot."""
    partition = Partition(release=spec.release, shard=shard)
    return Workspace(settings, store).run("snapshot", partition, environment={})


def snapshot_findings(store: Store, manifest: Manifest, suite: bytes | None = None) -> tuple[Finding, ...]:
    """What the check of a snapshot finds, by the packaged suite unless another one is given."""
    files = packaged_rules() | ({} if suite is None else {SUITE: suite})
    rules = Rules(digests={name: digest_bytes(data) for name, data in files.items()}, load=files.__getitem__)
    return validate_snapshot(store, manifest, rules)
