"""Shards committed by hand, so that the tests of the freeze depend on its inputs' format and on nothing else."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.drops.labels import LABEL_FIELDS
from mm_assets.features.schema import EMBEDDING_SIGNALS, MEASURED_PARTS_FIELD, REDACTIONS, SIGNALS
from mm_assets.identity.canonical import canonical_json, digest_bytes, digest_file, to_json
from mm_assets.materialize import packaged_rules
from mm_assets.pipeline import ASSETS
from mm_assets.release.config import FreezeConfig
from mm_assets.release.freeze import compute_dataset_release
from mm_assets.release.inputs import resolve_dataset_release
from mm_assets.release.validate import validate_dataset_release
from mm_assets.releases.inputs import InputContext
from mm_assets.releases.policies import pin_policy
from mm_assets.releases.spec import DropPin, ReleasePin, ReleaseSpec, shard_key
from mm_assets.snapshot.schema import UNKNOWN_KEY
from mm_assets.store.action import Action
from mm_assets.store.commit import Attempt, Committed, OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, Manifest, Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets.store.tables import ARROW_TYPE, PARQUET_TYPE, read_parquet, table_of, write_parquet

ORIGIN = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "drop", "key", "label", "language", "group")),
        *LABEL_FIELDS,
    ]
)
SOURCE_YAML = b"""\
schema: mm.source/1
source: zoo
source_system: cms
owner: Ada
licence: CC-BY-4.0
allowed_uses: [research]
retention: keep
privacy_class: public
label_schema_version: '3'
annotation_guideline_version: g1
annotator_cohort: staff
adjudication_rule: majority
approval: {status: approved, by: Ada, at: null}
"""
TENSOR_IDS = pa.schema([("id", pa.string())])
CODE = digest_bytes(b"code")
#: What the features state about themselves in their table of signals.
PARAMS = {"params.image_size": "64", "params.sample_rate": "16000"}


def sample(key: str, **values: Any) -> dict[str, Any]:
    """A row with text, picture and sound of its own unless ``values`` say otherwise; None removes a modality."""
    source, drop = values.pop("source", "zoo"), values.pop("drop", "d1")
    row: dict[str, Any] = {
        "id": f"{source}/{drop}/{key}", "source": source, "drop": drop, "key": key, "label": "cat", "language": "en",
        "group": None, "text": f"text {key}", "image": f"image {key}", "audio": f"audio {key}", "text_chars": 10,
        "image_width": 64, "image_height": 64, "audio_seconds": 1.0,
    }  # fmt: skip
    row |= values
    for modality, column in (
        ("text", "text_digest"),
        ("image", "image_pixels_digest"),
        ("audio", "audio_decode_digest"),
    ):
        content = row.pop(modality)
        row[f"has_{modality}"] = content is not None
        row[column] = None if content is None else digest_bytes(content.encode())
    row |= {"has_video": False, "video_frames": 0}
    row["text_tokens"], row["audio_frames"] = 12 * row["has_text"], 100 * row["has_audio"]
    return row


@dataclass
class World:
    """A store with shards, and the shortest way to freeze them."""

    store: Store
    folder: Path
    config: FreezeConfig = FreezeConfig()

    def commit(
        self, asset: str, partition: Partition, tables: Mapping[str, pa.Table], inputs: Sequence[Input] = ()
    ) -> Committed:
        """Commits tables as an asset."""
        digests: dict[str, str] = {}
        files = []
        for name, table in tables.items():
            path = write_parquet(table, self.folder / "output")
            path = path.rename(self.folder / f"{asset}-{partition.path.replace('/', '-')}-{name}")
            digests[name] = digest_file(path)
            kind = ARROW_TYPE if name.endswith(".arrow") else PARQUET_TYPE
            files.append(OutputFile(name=name, path=path, media_type=kind, num_rows=table.num_rows))
        action = Action(asset=asset, code=CODE, params={"of": digests}, environment={}, inputs=tuple(inputs))
        return Attempt(self.store, action, partition).commit_result(StageResult(files=tuple(files), stats={}))

    def shard(
        self,
        release: str,
        shard: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        dead: int = 0,
        unknown: Mapping[str, int] | None = None,
        redactions: str | None = None,
    ) -> dict[str, Committed]:
        """Commits the three assets of a shard."""
        rows = sorted(rows, key=lambda row: row["id"])
        partition = Partition(release=release, shard=shard)
        schema = SIGNALS.append(MEASURED_PARTS_FIELD) if any("parts" in row for row in rows) else SIGNALS
        signals = _table(rows, schema).replace_schema_metadata(
            PARAMS | ({REDACTIONS: redactions} if redactions else {})
        )
        letters = pa.table({"id": pa.array([f"dead {number}" for number in range(dead)], pa.string())})
        rejected = letters.slice(0, 0)
        if unknown:
            rejected = rejected.replace_schema_metadata({UNKNOWN_KEY: canonical_json(unknown)})
        tables: dict[str, dict[str, pa.Table]] = {
            "snapshot": {"samples.parquet": _table(rows, ORIGIN), "dead_letters.parquet": rejected},
            "features": {
                "signals.parquet": signals,
                "tensors.arrow": _table(rows, TENSOR_IDS),
                "dead_letters.parquet": letters,
            },
            "embeddings": {"signals.parquet": _table(rows, EMBEDDING_SIGNALS)},
        }
        return {asset: self.commit(asset, partition, files) for asset, files in tables.items()}

    def spec(self, release: str, num_shards: int, **values: Any) -> ReleaseSpec:
        """A spec of the hand-made source."""
        name: str = values.pop("drop", "d1")
        drop = {
            "schema": "mm.drop/1", "source": "zoo", "drop": name, "captured_from": "2026-01-01T00:00:00+00:00",
            "captured_to": "2026-02-01T00:00:00+00:00", "format": "webdataset", "objects": [],
            "annotation": {"guideline_version": "g1", "annotator_cohort": "staff", "adjudication_rule": "majority"},
        }  # fmt: skip
        source_yaml: bytes = values.pop("source_yaml", SOURCE_YAML)
        pin = DropPin(
            source="zoo", drop=name, digest=self.store.put_bytes(json.dumps(drop).encode()),
            source_digest=self.store.put_bytes(source_yaml),
        )  # fmt: skip
        parent: Committed | None = values.pop("parent", None)
        data_of: Committed | None = values.pop("data_of", None)
        document: dict[str, Any] = {
            "schema": "mm.release/2", "release": release, "drops": [] if data_of else [pin], "parent": _pin(parent),
            "data_of": _pin(data_of), "exclusions": [], "rules": {}, "encoder": {},
            "policy": pin_policy(self.store, "default"),
            "seed": 7, "num_shards": 0 if data_of else num_shards,
            "configuration": {"release": to_json(self.config)},
        }  # fmt: skip
        return ReleaseSpec(**(document | values))

    @property
    def rules(self) -> Rules:
        """The packaged rules."""
        files = packaged_rules()
        return Rules(digests={name: digest_bytes(data) for name, data in files.items()}, load=files.__getitem__)

    def action(self, spec: ReleaseSpec) -> Action:
        """What the release would be frozen from; the hand-made shards and parents count as checked."""
        context = InputContext(
            store=self.store,
            spec=spec,
            partition=Partition(release=spec.release),
            environment={},
            rules=self.rules,
            take=lambda asset, partition: require_ref(self.store, asset, partition),
            require_sound=lambda _manifest, _digest: None,
            peek=lambda _asset: None,
            reads=ASSETS["dataset_release"].reads,
        )
        resolved = resolve_dataset_release(context)
        return Action(
            asset="dataset_release", code=CODE, params=resolved.params, environment={}, inputs=resolved.inputs
        )

    def freeze(self, spec: ReleaseSpec) -> Committed:
        """Resolves, computes and commits the release."""
        action = self.action(spec)
        workdir = self.folder / f"freeze-{len(list(self.folder.iterdir()))}"
        workdir.mkdir()
        result = compute_dataset_release(Job(store=self.store, action=action, workdir=workdir))
        return Attempt(self.store, action, Partition(release=spec.release)).commit_result(result)

    def release(
        self, rows: Sequence[Mapping[str, Any]], *, release: str = "r1", num_shards: int = 2, **values: Any
    ) -> Committed:
        """Deals rows to shards and freezes them."""
        for index in range(num_shards):
            self.shard(release, shard_key(index), rows[index::num_shards])
        return self.freeze(self.spec(release, num_shards, **values))

    def rows(self, committed: Committed) -> dict[str, dict[str, Any]]:
        """``samples.parquet`` by key."""
        path = self.store.fetch(committed.manifest.output("samples.parquet").digest, self.folder)
        return {row["id"].split("/", 2)[2]: row for row in read_parquet(path).to_pylist()}

    def document(self, committed: Committed, name: str) -> Any:
        """A JSON output."""
        return json.loads(self.store.get_bytes(committed.manifest.output(name).digest))

    def findings(self, manifest: Manifest) -> dict[str, Finding]:
        """What the check finds, by rule."""
        found = validate_dataset_release(self.store, manifest, self.rules)
        return {finding.rule: finding for finding in found}


def _pin(committed: Committed | None) -> ReleasePin | None:
    if committed is None:
        return None
    return ReleasePin(release=committed.manifest.partition.release, digest=committed.manifest_digest)


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    nullable = pa.schema([field.with_nullable(True) for field in schema])
    return table_of([{name: row.get(name) for name in schema.names} for row in rows], nullable)


def freeze_columns(world: World, *, num_samples: int, num_shards: int) -> Committed:
    """Commits shards of numbers drawn by column, which rows as dicts would be too slow for, and freezes them."""
    per_shard = num_samples // num_shards
    for index in range(num_shards):
        rng = np.random.default_rng(index)
        keys = [f"zoo/d1/{index:04d}-{number:07d}" for number in range(per_shard)]
        known: dict[str, Any] = {
            "id": keys, "source": ["zoo"] * per_shard, "drop": ["d1"] * per_shard,
            "label": rng.choice(["cat", "dog", "owl"], per_shard).tolist(),
            "language": rng.choice(["en", "de", "fr"], per_shard).tolist(),
        }  # fmt: skip
        known |= {
            f"{name}_digest": [f"{name} {key}" for key in keys] for name in ("text", "image_pixels", "audio_decode")
        }
        tables = {
            name: pa.table([_column(field, known, rng, per_shard) for field in schema], schema=_nullable(schema))
            for name, schema in (("origin", ORIGIN), ("signals", SIGNALS), ("embedded", EMBEDDING_SIGNALS))
        }
        partition = Partition(release="r1", shard=shard_key(index))
        letters = pa.table({"id": pa.array([], pa.string())})
        signals = tables["signals"].replace_schema_metadata(PARAMS)
        world.commit("snapshot", partition, {"samples.parquet": tables["origin"], "dead_letters.parquet": letters})
        world.commit(
            "features",
            partition,
            {
                "signals.parquet": signals,
                "tensors.arrow": tables["origin"].select(["id"]),
                "dead_letters.parquet": letters,
            },
        )
        world.commit("embeddings", partition, {"signals.parquet": tables["embedded"]})
    return world.freeze(world.spec("r1", num_shards))


def _column(field: pa.Field, known: Mapping[str, Any], rng: np.random.Generator, count: int) -> pa.Array:
    if field.name in known:
        return pa.array(known[field.name], field.type)
    if pa.types.is_boolean(field.type):
        return pa.array(rng.random(count) < 0.9, field.type)
    if pa.types.is_integer(field.type):
        return pa.array(rng.integers(4, 400, count), field.type)
    if pa.types.is_floating(field.type):
        return pa.array(rng.random(count), field.type)
    return pa.nulls(count, field.type)


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema])


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    """An empty world."""
    folder = tmp_path / "world"
    folder.mkdir()
    return World(store=store, folder=folder)


@pytest.fixture(name="sample")
def sample_fixture() -> Callable[..., dict[str, Any]]:
    """Builds rows; see ``sample``."""
    return sample
