"""A small history committed by hand: two shards, a release, a plan and a model that consumed part of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.store.action import Action
from mm_assets.store.commit import Attempt, Committed, OutputFile, StageResult
from mm_assets.store.manifest import Input, NamedDigest, Partition
from mm_assets.store.objects import Store
from mm_assets.store.tables import JSON_TYPE, PARQUET_TYPE, write_parquet
from mm_assets_tests.by_hand import open_by_hand

CODE = digest_bytes(b"code")
LETTERS = pa.schema(
    [(name, pa.string()) for name in ("id", "object", "member", "modality", "stage", "reason", "detail")]
)


@dataclass
class History:
    """A store and the commits of its assets, by asset and partition."""

    store: Store
    folder: Path
    commits: dict[str, Committed]

    def commit(self, asset: str, partition: str, outputs: Mapping[str, Any], inputs: Sequence[Input] = ()) -> Committed:
        """Commits tables and JSON documents as ``asset`` of ``release[/shard]``."""
        release, _, shard = partition.partition("/")
        content = {name: v.to_pylist() if isinstance(v, pa.Table) else v for name, v in outputs.items()}
        action = Action(
            asset=asset, code=CODE, params={"content": digest_bytes(json.dumps(content).encode())},
            environment={"libsndfile": "1.2.2"} if asset == "features" else {}, inputs=tuple(inputs),
        )  # fmt: skip
        files = []
        for name, value in outputs.items():
            path = self.folder / f"{asset}-{partition.replace('/', '-')}-{name}"
            if isinstance(value, pa.Table):
                write_parquet(value, path)
            else:
                path.write_bytes(canonical_json(value))
            kind = PARQUET_TYPE if isinstance(value, pa.Table) else JSON_TYPE
            files.append(OutputFile(name=name, path=path, media_type=kind))
        attempt = Attempt(self.store, action, Partition(release=release, shard=shard or None))
        committed = attempt.commit_result(StageResult(files=tuple(files), stats={}))
        self.commits[f"{asset} {partition}"] = committed
        return committed

    def read(self, asset: str, partition: str, *names: str, role: str | None = None) -> Input:
        """The present partition of ``asset`` as an input of which ``names`` are read."""
        return self.commits[f"{asset} {partition}"].ref.as_input(*names, role=role)

    def digest(self, name: str) -> str:
        """Manifest digest of ``<asset> <partition>``."""
        return self.commits[name].manifest_digest

    def shard(self, shard: str, keys: Sequence[str], letters: Sequence[Mapping[str, str]] = ()) -> list[Input]:
        """Commits the three assets of a shard of release r1; returns them as a freeze reads them."""
        ids = [f"zoo/d1/{key}" for key in sorted(keys)]
        dead = pa.Table.from_pylist([dict(letter) for letter in letters], schema=LETTERS)
        drop = Input(
            asset="drop",
            partition={"source": "zoo", "drop": "d1"},
            manifest=digest_bytes(b"drop"),
            outputs=[NamedDigest(name=f"{shard}.tar", digest=digest_bytes(shard.encode()))],
        )
        alive_in_snapshot = sorted({*ids, *(row["id"] for row in letters if row["stage"] == "features")})
        outputs: dict[str, Mapping[str, Any]] = {
            "snapshot": {
                "samples.parquet": pa.table(
                    {
                        "id": pa.array(alive_in_snapshot, pa.string()),
                        "object": pa.array([f"{shard}.tar"] * len(alive_in_snapshot), pa.string()),
                    }
                ),
                "dead_letters.parquet": dead.filter(pa.compute.equal(dead["stage"], "snapshot")),
            },
            "features": {
                "signals.parquet": pa.table(
                    {"id": pa.array(ids, pa.string()), "sharpness": pa.array([0.5] * len(ids), pa.float64())}
                ),
                "dead_letters.parquet": dead.filter(pa.compute.equal(dead["stage"], "features")),
            },
            "embeddings": {
                "signals.parquet": pa.table(
                    {"id": pa.array(ids, pa.string()), "coherence": pa.array([0.25] * len(ids), pa.float64())}
                ),
            },
        }  # fmt: skip
        for asset, files in outputs.items():
            self.commit(asset, f"r1/{shard}", files, [drop] if asset == "snapshot" else [])
        return [self.read(asset, f"r1/{shard}", *files) for asset, files in outputs.items()]

    def freeze(self, inputs: list[Input], rows: list[dict[str, Any]]) -> Committed:
        """Commits dataset_release r1."""
        return self.commit("dataset_release", "r1", {"samples.parquet": pa.Table.from_pylist(rows)}, inputs)

    def train(self, plan: list[dict[str, Any]], ledger: list[dict[str, Any]]) -> Committed:
        """Commits batch_plan and model of r1."""
        release = self.read("dataset_release", "r1", "samples.parquet")
        self.commit("batch_plan", "r1", {"plan.parquet": pa.Table.from_pylist(plan)}, [release])
        planned = self.read("batch_plan", "r1", "plan.parquet")
        outputs = {"ledger.parquet": pa.Table.from_pylist(ledger), "spec.json": {"seed": 1}}
        return self.commit("model", "r1", outputs, [release, planned])


@pytest.fixture
def empty_history(store: Store, tmp_path: Path) -> History:
    """Nothing committed yet; release r1 is open."""
    open_by_hand(store, "r1")
    return History(store=store, folder=tmp_path, commits={})


@pytest.fixture
def history(empty_history: History) -> History:
    """``a`` and ``b`` selected, ``c`` left out, ``broken`` dead; the model consumed ``a`` twice and never ``b``."""
    broken = {
        "id": "zoo/d1/broken", "object": "0000.tar", "member": "broken.png", "modality": "image", "stage": "features",
        "reason": "truncated", "detail": "42 bytes are missing",
    }  # fmt: skip
    shards = [*empty_history.shard("0000", ["a", "c"], [broken]), *empty_history.shard("0001", ["b"])]
    rows = [
        {"id": f"zoo/d1/{key}", "shard": shard, "row": 0, "split": "train", "selected": not reasons,
         "reasons": reasons, "duplicate_of": "zoo/d1/a" if reasons else None}
        for key, shard, reasons in (("a", 0, ""), ("b", 1, ""), ("c", 0, "duplicate,policy:mine"))
    ]  # fmt: skip
    empty_history.freeze(shards, rows)
    planned = [
        {"step": step, "lane": 1, "pack": 0, "slot": slot, "id": f"zoo/d1/{key}"}
        for step, slot, key in ((0, 3, "a"), (1, 0, "b"), (2, 5, "a"), (3, 1, "a"))
    ]
    ledger = [
        {"step": 0, "lane": 0, "ids": []},
        {"step": 0, "lane": 1, "ids": ["zoo/d1/x", "zoo/d1/a"]},
        {"step": 2, "lane": 1, "ids": ["zoo/d1/a"]},
    ]
    empty_history.train(planned, ledger)
    return empty_history
