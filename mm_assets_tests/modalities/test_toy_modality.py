"""A modality is one package and one row, and so is an asset: toy ones go from raw files to a decision, in a copy.

The copy of the package is edited as the documentation says, and nothing else in it.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import mm_assets
from mm_assets.settings import read_settings
from mm_assets.store import embedded
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store, open_store
from mm_assets.store.refs import require_ref
from mm_assets.store.tables import map_arrow, read_parquet

ROW = """        Modality(
            name="depth", extensions=("toy",), formats=("toy",), max_bytes=1 << 10, length_column="depth_values",
            digest_column="depth_digest", corruptions=("depth_zeros",),
        ),
"""
END_OF_ROWS = "    )\n}  # fmt: skip\n"
ASSET_ROW = """    Asset(
        name="census", stage="census", reads={"dataset_release": ("samples.parquet",)},
        description="How many samples have each modality.", kinds=frozenset({"json"}),
        resolve=resolve_census, compute="mm_assets.census.compute:compute_census", libraries=("pyarrow",),
        validate=validate_census,
    ),
"""
END_OF_ASSETS = ")  # fmt: skip\n\nASSETS"
ASSET_IMPORT = "from mm_assets.census.validate import resolve_census, validate_census\n"
NUM_SAMPLES = 120
TIMEOUT_S = 900


class Workplace:
    """A copy of the package with the toy modality, and a folder in which it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = Path(mm_assets.__file__).parent
        shutil.copytree(source, folder / "code" / "mm_assets", ignore=shutil.ignore_patterns("__pycache__"))
        modalities = folder / "code" / "mm_assets" / "modalities"
        shutil.copytree(
            Path(__file__).parent / "toy_depth", modalities / "depth", ignore=shutil.ignore_patterns("__pycache__")
        )
        insert(modalities / "table.py", END_OF_ROWS, ROW)
        shutil.copytree(
            Path(__file__).parents[1] / "toy_census", folder / "code" / "mm_assets" / "census",
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
        pipeline = folder / "code" / "mm_assets" / "pipeline.py"
        insert(pipeline, END_OF_ASSETS, ASSET_ROW)
        insert(pipeline, "from mm_assets.checks.rules import Rules\n", ASSET_IMPORT)

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that runs the copy."""
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            "HOME": str(self.folder), "MM_HOME": str(self.folder / ".mm"), "MM_NUM_SHARDS": "1",
            "PYTHONPATH": str(self.folder / "code"),
        }  # fmt: skip

    def mm(self, *arguments: str) -> dict[str, Any]:
        """Runs a command of the copy that must succeed; its JSON answer."""
        answer = subprocess.run(
            [sys.executable, "-m", "mm_assets.cli", *arguments, "--json"],
            env=self.environment,
            cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert answer.returncode == 0, f"{arguments}: {answer.stderr}\n{answer.stdout}"
        return json.loads(answer.stdout.splitlines()[-1])

    def store(self) -> Store:
        """The embedded store."""
        return open_store(read_settings({"MM_HOME": str(self.folder / ".mm")}))


def insert(path: Path, before: str, text: str) -> None:
    """Writes ``text`` before the only place in a file that reads ``before``."""
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1
    path.write_text(content.replace(before, text + before), encoding="utf-8")


def write_drop(folder: Path) -> None:
    """Loose files: every sample has a depth profile that tells its class; text and pictures come and go."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_SAMPLES):
        stem = folder / f"s{number:03d}"
        label = number % 2
        values = rng.integers(0, 100, 6 + number % 7) + 100 * label
        stem.with_suffix(".toy").write_bytes(b"TOY1" + values.astype(np.uint8).tobytes())
        stem.with_suffix(".cls").write_text(("far", "near")[label], encoding="utf-8")
        if number % 3:
            stem.with_suffix(".txt").write_text(f"profile number {number}", encoding="utf-8")
        if number % 4 == 0:
            pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(stem.with_suffix(".png"))
    (folder / "broken.toy").write_bytes(b"TOY1" + bytes([7, 255]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """A workplace whose release ``r1`` has run to the end."""
    workplace = Workplace(tmp_path_factory.mktemp("toy"))
    write_drop(workplace.folder / "drop")
    try:
        created = workplace.mm("drop", "create", "drop", "--source", "sensors", "--drop", "d1")
        assert created["num_samples"] == NUM_SAMPLES + 1
        assert workplace.mm("drop", "check", "drop")["problems"] == []
        workplace.mm("drop", "push", "drop")
        workplace.mm("release", "open", "--release", "r1", "--drop", "sensors/d1", "--config", "smoke")
        report = workplace.mm("run", "--release", "r1")
        assert report["failed"] == []
        yield workplace
    finally:
        embedded.stop(workplace.folder / ".mm")


def manifest_of(store: Store, asset: str) -> Manifest:
    """What an asset of ``r1`` is."""
    is_sharded = asset in ("snapshot", "features", "embeddings")
    partition = Partition(release="r1", shard="0000" if is_sharded else None)
    return read_manifest(store, require_ref(store, asset, partition).manifest)


def read_table(store: Store, asset: str, name: str, folder: Path) -> pa.Table:
    """One Parquet output."""
    return read_parquet(store.fetch(manifest_of(store, asset).output(name).digest, folder))


def read_json(store: Store, asset: str, name: str) -> dict[str, Any]:
    """One JSON output."""
    return json.loads(store.get_bytes(manifest_of(store, asset).output(name).digest))


@pytest.mark.e2e
def test_snapshot_holds_the_toy_blobs(place: Workplace, tmp_path: Path) -> None:
    samples = read_table(place.store(), "snapshot", "samples.parquet", tmp_path)
    assert samples["depth_format"].to_pylist() == ["toy"] * (NUM_SAMPLES + 1)


@pytest.mark.e2e
def test_features_hold_its_tensors_signals_and_dead_letters(place: Workplace, tmp_path: Path) -> None:
    store = place.store()
    signals = read_table(store, "features", "signals.parquet", tmp_path)
    tensors = map_arrow(store.fetch(manifest_of(store, "features").output("tensors.arrow").digest, tmp_path))
    letters = read_table(store, "features", "dead_letters.parquet", tmp_path)
    assert signals["depth_values"].to_pylist()[:3] == [6, 7, 8]
    assert signals["depth_mean"].null_count == 0
    assert tensors["depth"].null_count == 0
    assert tensors.schema.metadata[b"depth_stack"] == b"4"
    assert letters.select(["id", "modality", "reason"]).to_pylist() == [
        {"id": "sensors/d1/broken", "modality": "depth", "reason": "not_finite"}
    ]


@pytest.mark.e2e
def test_embeddings_hold_its_vectors(place: Workplace, tmp_path: Path) -> None:
    store = place.store()
    assert read_table(store, "embeddings", "embeddings.parquet", tmp_path)["depth"].null_count == 0


@pytest.mark.e2e
def test_the_release_counts_it(place: Workplace, tmp_path: Path) -> None:
    store = place.store()
    samples = read_table(store, "dataset_release", "samples.parquet", tmp_path)
    assert samples["has_depth"].to_pylist() == [True] * NUM_SAMPLES
    assert samples["depth_values"].to_pylist()[:3] == [6, 7, 8]
    assert "depth" in "".join(read_json(store, "dataset_release", "stats.json")["modalities"])


@pytest.mark.e2e
def test_the_plan_reserves_tokens_and_the_model_learns_from_them(place: Workplace, tmp_path: Path) -> None:
    store = place.store()
    plan = read_table(store, "batch_plan", "plan.parquet", tmp_path)
    assert min(plan["depth_tokens"].to_pylist()) == 2
    ledger = read_table(store, "model", "metrics.parquet", tmp_path)
    assert ledger.num_rows == 12
    assert min(ledger["contrastive_loss"].to_pylist()) > 0


@pytest.mark.e2e
def test_the_evaluation_knows_its_damage(place: Workplace) -> None:
    code = """
import numpy as np
from mm_assets.batching.samples import Sample
from mm_assets.evaluation.config import DEFAULT_CORRUPTIONS
from mm_assets.evaluation.corruptions import damage
known = {corruption.name: corruption for corruption in DEFAULT_CORRUPTIONS}
sample = Sample(id="a", tensors={"depth": np.ones(60, np.float32)})
print(damage(sample, known["depth_zeros"], 3, 0).tensors["depth"].sum())
print(dict(damage(sample, known["drop_depth"], 1, 0).tensors))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=place.folder / "code", capture_output=True, text=True, check=True
    )
    left, dropped = answer.stdout.splitlines()
    assert 10 < float(left) < 50
    assert dropped == "{}"


@pytest.mark.e2e
def test_the_evaluation_retrieves_it_and_a_decision_follows(place: Workplace) -> None:
    store = place.store()
    report = read_json(store, "evaluation", "report.json")
    assert {"depth", "text+depth"} <= {entry["value"] for entry in report["slices"] if entry["slice"] == "modalities"}
    assert report["retrieval"]["depth_to_text"]["n"] > 0
    assert read_json(store, "promotion", "decision.json")["decision"] in ("promoted", "rejected")


@pytest.mark.e2e
def test_the_toy_asset_is_everywhere_an_asset_is(place: Workplace) -> None:
    store = place.store()
    census = read_json(store, "census", "census.json")
    assert census["depth"] == NUM_SAMPLES
    assert place.mm("release", "show", "r1")["stages"]["census"] == {"state": "passed", "done": 1, "total": 1}
    verified = place.mm("verify")
    assert verified["corrupt"] == verified["missing"] == []
    again = place.mm("run", "--release", "r1", "--stage", "census")
    assert (again["computed"], again["cached"]) == (0, 1)
    code = (
        "from mm_assets.definitions import defs; "
        "print(sorted(key.to_user_string() for key in defs.resolve_all_asset_keys()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=place.folder / "code", capture_output=True, text=True, check=True
    )
    assert "census" in answer.stdout


@pytest.mark.e2e
def test_damage_to_the_toy_asset_is_found_without_a_word_about_it_elsewhere(place: Workplace) -> None:
    store = place.store()
    digest = manifest_of(store, "census").output("census.json").digest
    key = f"objects/{digest[7:9]}/{digest[7:]}"
    good = store.get_bytes(digest)
    store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}", Body=bytes([good[0] ^ 1]) + good[1:])
    answer = subprocess.run(
        [sys.executable, "-m", "mm_assets.cli", "verify", "--json"], env=place.environment, cwd=place.folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 1
    assert json.loads(answer.stdout.splitlines()[-1])["corrupt"] == [key]
    place.mm("run", "--release", "r1", "--stage", "census", "--force")
    assert store.get_bytes(digest) == good
