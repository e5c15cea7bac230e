"""What is fuzzed: every reader of bytes that somebody else writes, each with files to begin from."""

import functools
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mm_assets.checks.exclusions import glob_regex, parse_exclusions
from mm_assets.checks.suite import parse_suite
from mm_assets.drops.check import examine_drop
from mm_assets.drops.collection import Collection
from mm_assets.drops.contents import find_contents
from mm_assets.drops.fields import finish_sample, parse_object, printable
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import Drop, DropObject, parse_drop
from mm_assets.drops.samples import Blob, Rejection, VerifiedReader
from mm_assets.drops.source import parse_source, source_template
from mm_assets.drops.tar import read_tar
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.schema import SIGNALS
from mm_assets.identity.canonical import digest_bytes, digest_hex
from mm_assets.materialize import packaged_rules
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import aspect
from mm_assets.promotion.config import parse_thresholds
from mm_assets.release.expressions import require_usable
from mm_assets.release.policies import parse_policy
from mm_assets.releases.policies import packaged_policies
from mm_assets.releases.spec import parse_spec
from mm_assets.store.manifest import Output, content_digest, parse_manifest
from mm_assets_tests.drops.raw_data import drop_of, png, tar_bytes
from mm_assets_tests.hostile import archives, indexes, pictures, records, sounds, videos
from mm_assets_tests.hostile.mutations import mutate, mutate_gzip, mutate_json, mutate_png, mutate_tar

MAX_SEED_BYTES = 1 << 15
#: Small ceilings: what is above them is refused for its size as everywhere, only sooner.
LIMITS = SnapshotConfig(
    max_text_bytes=1 << 16, max_metadata_bytes=1 << 15, max_image_pixels=1 << 20, max_audio_seconds=5.0,
    max_video_pixels=1 << 18, max_video_seconds=5.0, max_video_frames=2000, max_tar_members=1000,
    max_unpacked_bytes=1 << 22,
)  # fmt: skip
DECODED = FeaturesConfig(
    max_image_pixels=1 << 20,
    max_decoded_bytes=1 << 22,
    max_decoded_seconds=5.0,
    max_text_bytes=1 << 16,
    max_video_pixels=1 << 18,
    max_video_seconds=5.0,
    max_video_frames=2000,
)

Mutate = Callable[[Random, bytes, Sequence[bytes]], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A reader. ``read`` gives the sentences it says; ``share`` is how often it is run, against the others."""

    name: str
    read: Callable[[bytes], Iterable[str]]
    seeds: Sequence[bytes]
    share: float
    mutate: Mutate = mutate


def _blob(modality: str, data: bytes) -> Iterator[str]:
    found = aspect(modality, "header").inspect_header(data, LIMITS)
    if isinstance(found, Refusal):
        yield found.detail
    elif data:
        aspect(modality, "decode").decode(data, DECODED)


def _description(data: bytes) -> Iterator[str]:
    columns = parse_object(data, "json member", "bad_metadata")
    if isinstance(columns, Refusal):
        yield columns.detail
        return
    labels = {name: value for name, value in columns.items() if value is None or isinstance(value, str)}
    blob = Blob(modality="text", offset=0, size_bytes=1, digest=digest_bytes(b"x"), format="txt")
    made = finish_sample("key", "a.tar", [blob], {**columns, **labels}, LIMITS)
    if isinstance(made, Rejection):
        yield made.detail
    else:
        json.loads(made.metadata)


def _tar(name: str, data: bytes) -> Iterator[str]:
    entry = DropObject(key=name, size_bytes=len(data), sha256=digest_hex(digest_bytes(data)))
    drop = drop_of("webdataset", [entry])
    with tempfile.TemporaryDirectory() as folder, Collection(Path(folder), LIMITS) as found:
        read_tar(VerifiedReader(io.BytesIO(data), entry, name), drop, name, found)
        for _, made in found.read_back():
            if isinstance(made, Rejection):
                yield printable(made.detail)


def _index(suffix: str, data: bytes) -> Iterator[str]:
    name = f"index{suffix}"
    files = {name: data, "a.png": png()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        contents = find_contents(list(files), lambda _: path, "drop")
        assert contents is not None
        entries = {
            key: DropObject(key=key, size_bytes=len(files[key]), sha256=digest_hex(digest_bytes(files[key])))
            for key in contents.names
        }
        drop = Drop(
            schema="mm.drop/1", source="s", drop="d", captured_from=None, captured_to=None, format="index",
            objects=list(entries.values()), annotation={}, columns=dict(contents.columns),
        )  # fmt: skip
        report = examine_drop(
            drop, lambda entry: VerifiedReader(io.BytesIO(files[entry.name]), entry, entry.name), path, config=LIMITS
        )
    for problem in report.problems:
        if problem.is_fatal:
            yield problem.message


def _drop(data: bytes) -> Iterator[str]:
    drop = parse_drop(data, "drop.json")
    assert parse_drop(drop.encode(), "again") == drop.model_copy(
        update={"objects": sorted(drop.objects, key=lambda entry: entry.name)}
    )
    yield from ()


def _parsed(parse: Callable[[bytes, str], object], where: str, data: bytes) -> Iterator[str]:
    parse(data, where)
    yield from ()


def _exclusions(data: bytes) -> Iterator[str]:
    found = parse_exclusions(data, "exclusions.json")
    found.covers("s/d/key")
    re.compile(glob_regex(data[:40].decode("utf-8", "replace")))
    yield from ()


def _expression(data: bytes) -> Iterator[str]:
    require_usable("policy x", data.decode("utf-8", "replace"), SIGNALS)
    yield from ()


def _spec(data: bytes) -> Iterator[str]:
    parse_spec(data, "spec.json", "r1").encode()
    yield from ()


def _manifest(data: bytes) -> Iterator[str]:
    parse_manifest(data, "manifest").encode()
    yield from ()


def _small(files: Iterable[bytes]) -> list[bytes]:
    return [data for data in files if len(data) <= MAX_SEED_BYTES]


def _suffixed(files: dict[str, bytes], *suffixes: str) -> list[bytes]:
    return _small(data for name, data in files.items() if name.endswith(suffixes))


def _record(**values: object) -> bytes:
    return json.dumps(values).encode()


def _specs() -> list[bytes]:
    digest = digest_bytes(b"x")
    pin = {"source": "s", "drop": "d", "digest": digest, "source_digest": digest}
    common = {
        "release": "r1", "drops": [pin], "parent": None, "exclusions": ["a*"], "policy": {"name": "all", "sql": "true"},
        "encoder": {"kind": "none", "digest": digest}, "seed": 7, "num_shards": 2,
    }  # fmt: skip
    return [
        _record(schema="mm.release/2", data_of=None, rules={"snapshot.yaml": digest}, configuration={"a": 1}, **common),
        _record(schema="mm.release/1", recipe={"training": {"log_every": 1, "steps": 2}, "name": "x"}, **common),
    ]


def _manifests() -> list[bytes]:
    digest = digest_bytes(b"x")
    output = {"name": "a.tar", "digest": digest, "size_bytes": 1, "media_type": "application/x-tar", "num_rows": 3}
    common = {
        "asset": "snapshot", "partition": {"release": "r1", "shard": "0000"}, "fingerprint": digest, "code": digest,
        "params": {"a": [1, 2.5]}, "environment": {}, "outputs": [output], "stats": {"rows_in": 3},
    }  # fmt: skip
    entry = {"asset": "drop", "partition": {"source": "s"}}
    content = content_digest([Output.model_validate(output)])
    return [
        _record(
            schema="mm.manifest/2", content=content, inputs=[{**entry, "manifest": digest, "outputs": []}], **common
        ),
        _record(schema="mm.manifest/1", inputs=[{**entry, "digest": digest}], **common),
    ]


def _targets() -> Iterator[Target]:
    of_pictures, of_sounds, of_videos, tars, tables = (
        pictures.pictures(), sounds.sounds(), videos.videos(), archives.archives(), indexes.indexes()
    )  # fmt: skip
    rules = packaged_rules()
    for name, suffix, share in (("png", ".png", 10.0), ("jpg", ".jpg", 10.0), ("webp", ".webp", 5.0)):
        read, change = functools.partial(_blob, "image"), mutate_png if name == "png" else mutate
        yield Target(name=name, read=read, seeds=_suffixed(of_pictures, suffix), share=share, mutate=change)
    for name, suffix, share in (
        ("wav", ".wav", 10.0), ("flac", ".flac", 8.0), ("ogg", ".ogg", 3.0), ("mp3", ".mp3", 5.0),
    ):  # fmt: skip
        yield Target(name=name, read=functools.partial(_blob, "audio"), seeds=_suffixed(of_sounds, suffix), share=share)
    for suffix, share in ((".mp4", 2.0), (".mov", 1.0), (".webm", 1.0), (".mkv", 1.0), (".avi", 1.0)):
        yield Target(
            name=suffix.strip("."), read=functools.partial(_blob, "video"), seeds=_suffixed(of_videos, suffix),
            share=share,
        )  # fmt: skip
    yield Target(name="text", read=functools.partial(_blob, "text"), seeds=_small(sounds.texts().values()), share=5)
    yield Target(
        name="description", read=_description, seeds=_small(archives.descriptions().values()), share=10,
        mutate=mutate_json,
    )  # fmt: skip
    members = tar_bytes([("a.txt", b"x"), ("a.png", png()), ("a.json", b'{"label": "cat"}'), ("b.cls", b"3")])
    yield Target(
        name="tar", read=functools.partial(_tar, "a.tar"), seeds=[members, *_suffixed(tars, ".tar")], share=12,
        mutate=mutate_tar,
    )  # fmt: skip
    yield Target(
        name="gzip", read=functools.partial(_tar, "a.tar.gz"), seeds=_suffixed(tars, ".tar.gz", ".tgz"), share=4,
        mutate=mutate_gzip,
    )  # fmt: skip
    for suffix, share, change in (
        (".jsonl", 2.0, mutate_json), (".csv", 2.0, mutate), (".tsv", 1.0, mutate), (".parquet", 1.5, mutate),
    ):  # fmt: skip
        yield Target(
            name=suffix.strip("."), read=functools.partial(_index, suffix), seeds=_suffixed(tables, suffix),
            share=share, mutate=change,
        )  # fmt: skip
    yield Target(name="drop", read=_drop, seeds=_small(records.drops().values()), share=5, mutate=mutate_json)
    yield Target(
        name="source", read=functools.partial(_parsed, parse_source, "source.yaml"),
        seeds=[source_template("s"), *_small(records.sources().values())], share=1,
    )  # fmt: skip
    policies = [*packaged_policies().values(), *records.policies().values()]
    yield Target(
        name="policy", read=functools.partial(_parsed, parse_policy, "policy.yaml"), seeds=_small(policies), share=2
    )
    yield Target(
        name="suite", read=functools.partial(_parsed, parse_suite, "snapshot.yaml"),
        seeds=[rules["snapshot.yaml"], rules["features.yaml"]], share=0.3,
    )  # fmt: skip
    yield Target(
        name="thresholds", read=functools.partial(_parsed, parse_thresholds, "promotion.yaml"),
        seeds=[rules["promotion.yaml"]], share=0.3,
    )  # fmt: skip
    yield Target(name="exclusions", read=_exclusions, seeds=EXCLUSIONS, share=2, mutate=mutate_json)
    yield Target(name="expression", read=_expression, seeds=EXPRESSIONS, share=0.2)
    yield Target(name="spec", read=_spec, seeds=_specs(), share=3, mutate=mutate_json)
    yield Target(name="manifest", read=_manifest, seeds=_manifests(), share=3, mutate=mutate_json)


EXPRESSIONS = (
    b"image_width < 100 AND has_image",
    b"text_chars BETWEEN 3 AND 9 OR text_digest IN ('en', 'de')",
    b"CASE WHEN audio_seconds > 3 THEN true ELSE length(text_digest) < 4 END",
)
EXCLUSIONS = (
    b'{"schema": "mm.exclusions/1", "samples": {"s/d/a": "broken", "s/d/b*": "dark [0-9]?"}}',
    b"[a-z]*[!b]?[]x]",
)
TARGETS = tuple(_targets())
