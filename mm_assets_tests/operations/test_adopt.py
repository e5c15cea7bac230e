"""Adoption, by programs that import an edited copy of the package: what the bytes are is asked of the code itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_assets.configurations import CONFIGURATIONS, SMOKE, ReleaseRequest, open_named_release
from mm_assets.errors import UsageError
from mm_assets.identity.code import ROOT
from mm_assets.materialize import Workspace, code_of
from mm_assets.operations.adopt import adopt
from mm_assets.operations.differences import changed_samples, first_row
from mm_assets.pipeline import asset_named
from mm_assets.settings import Settings
from mm_assets.store.action import Maker, adopted_makers
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref

pytestmark = pytest.mark.integration

SHARDS = [Partition(release="r1", shard=shard) for shard in ("0000", "0001")]
EXTRACT, SIGNALS = "features/extract.py", "modalities/text/signals.py"
#: Materializes and checks one shard's features anew, whatever is known of them.
FORCE = """
import sys
from mm_assets.materialize import Workspace
from mm_assets.settings import read_settings
from mm_assets.store.manifest import Partition
workspace, partition = Workspace(read_settings()), Partition(release="r1", shard=sys.argv[1])
workspace.run("features", partition, environment={}, force=True)
assert workspace.check("features", partition).passed
"""
#: Prints of each shard whether its features are what they would be made into now.
CURRENT = """
from mm_assets.materialize import Workspace
from mm_assets.settings import read_settings
from mm_assets.store.manifest import Partition
workspace = Workspace(read_settings())
for shard in ("0000", "0001"):
    print(workspace.find_current("features", Partition(release="r1", shard=shard), {}) is not None)
"""


@dataclass(frozen=True)
class Copy:
    """A copy of the package that can be edited and run."""

    folder: Path

    def edit(self, module: str, old: str = "", new: str = "") -> None:
        """Replaces a text that is there once, or appends to the module."""
        path = self.folder / ROOT.name / module
        source = path.read_text(encoding="utf-8")
        assert not old or source.count(old) == 1
        path.write_text(source.replace(old, new) if old else source + new, encoding="utf-8")

    def python(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def mm(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit status of ``mm … --json`` and the object it prints."""
        done = self.python("-m", "mm_assets.cli", *arguments, "--json")
        assert done.stdout.strip(), done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def adopt(self, num_samples: int = 2) -> tuple[int, dict[str, Any]]:
        return self.mm("adopt", "--asset", "features", "--samples", str(num_samples))

    def computed(self) -> int:
        """How many partitions ``mm run`` computes."""
        status, report = self.mm("run", "--release", "r1", "--stage", "features")
        assert status == 0, report
        return int(report["computed"])


@pytest.fixture
def copied(tmp_path: Path) -> Copy:
    shutil.copytree(ROOT, tmp_path / "copy" / ROOT.name, ignore=shutil.ignore_patterns("__pycache__"))
    return Copy(folder=tmp_path / "copy")


@pytest.fixture
def workspace(store: Store, moto_settings: Settings, push_samples: Callable[..., Path]) -> Workspace:
    """Release r1 of two shards, with checked snapshots and features made by the package as it is."""
    push_samples(store, "shapes", "d1")
    workspace = Workspace(moto_settings, store)
    request = ReleaseRequest(release="r1", drops=(("shapes", "d1"),), configuration="smoke", num_shards=2)
    open_named_release(workspace, request)
    for partition in SHARDS:
        for asset in ("snapshot", "features"):
            workspace.run(asset, partition, environment={})
            assert workspace.check(asset, partition).passed
    return workspace


def adopted_codes(store: Store, code: str) -> list[str]:
    return [maker.code for maker in adopted_makers(store, "features", Maker(code=code, environment={}))]


def keys(store: Store) -> dict[str, str]:
    """Every key of the store, with its bytes' ETag."""
    found = {info.key: store.read_key(info.key) for info in store.list_keys("")}
    return {key: current.etag for key, current in found.items() if current is not None}


def ids_of(store: Store, shard: str) -> list[str]:
    """Ids of a shard's samples, in the order of its tables."""
    ref = require_ref(store, "snapshot", Partition(release="r1", shard=shard))
    table = pq.read_table(pa.BufferReader(store.get_bytes(ref.output("samples.parquet").digest)), columns=["id"])
    return table.column("id").to_pylist()


def new_keys(store: Store, before: dict[str, str]) -> list[str]:
    """Keys that came; none may have changed or gone."""
    after = keys(store)
    assert {key: after.get(key) for key in before} == before
    return sorted(set(after) - set(before))


def test_code_that_makes_the_same_bytes_is_adopted_and_computes_nothing(
    store: Store, workspace: Workspace, copied: Copy
) -> None:
    copied.edit(EXTRACT, new="\n_HARMLESS = 1\n")
    before = keys(store)
    status, report = copied.adopt()
    assert status == 0
    old_code = code_of(asset_named("features"))
    assert set(report) >= {"asset", "old_code", "new_code", "partitions", "equal"}
    assert (report["asset"], report["old_code"], report["equal"]) == ("features", old_code, True)
    assert sorted(report["partitions"]) == ["r1/0000", "r1/0001"]
    # It wrote down the adoption and nothing else.
    (key,) = new_keys(store, before)
    assert key.startswith(f"adoptions/features/{report['new_code'].removeprefix('sha256:')}/")
    current = store.read_key(key)
    assert current is not None
    adoption = json.loads(current.data)
    assert set(adoption) == {"schema", "asset", "old_code", "new_code", "partitions", "by", "at"}
    assert (adoption["old_code"], adoption["new_code"]) == (old_code, report["new_code"])
    # Embeddings, which did not exist yet, are computed; features are not.
    contents = [require_ref(store, "features", shard).content for shard in SHARDS]
    assert copied.computed() == len(SHARDS)
    refs = [require_ref(store, "features", shard) for shard in SHARDS]
    assert [(ref.cached, ref.content) for ref in refs] == [(True, content) for content in contents]
    assert copied.computed() == 0

    # Adoptions chain: what was looked up under the second code is adopted by a third one.
    copied.edit(EXTRACT, new="\n_HARMLESS_TOO = 1\n")
    status, again = copied.adopt(1)
    assert (status, again["equal"], len(again["partitions"])) == (0, True, 1)
    assert again["old_code"] == report["new_code"]
    assert adopted_codes(store, again["new_code"]) == [report["new_code"], old_code]
    assert copied.computed() == 0


def test_every_configuration_is_compared_however_few_samples_are_asked_for(
    workspace: Workspace, copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGURATIONS, "small", replace(SMOKE, features=replace(SMOKE.features, image_size=16)))
    request = ReleaseRequest(release="r2", drops=(("shapes", "d1"),), configuration="small", num_shards=2)
    open_named_release(workspace, request)
    for shard in SHARDS:
        for asset in ("snapshot", "features"):
            workspace.run(asset, shard.model_copy(update={"release": "r2"}), environment={})
            assert workspace.check(asset, shard.model_copy(update={"release": "r2"})).passed
    copied.edit(EXTRACT, new="\n_HARMLESS = 1\n")
    _, report = copied.adopt(1)
    assert sorted(path.partition("/")[0] for path in report["partitions"]) == ["r1", "r2"]


def test_an_adoption_covers_what_every_code_before_it_made(store: Store, workspace: Workspace, copied: Copy) -> None:
    first_code = code_of(asset_named("features"))
    copied.edit(EXTRACT, new="\n_HARMLESS = 1\n")
    _, second = copied.adopt(1)
    done = copied.python("-c", FORCE, "0001")
    assert done.returncode == 0, done.stderr
    made_by = [read_manifest(store, require_ref(store, "features", shard).manifest).code for shard in SHARDS]
    assert made_by == [first_code, second["new_code"]]

    copied.edit(EXTRACT, new="\n_HARMLESS_TOO = 1\n")
    status, third = copied.adopt(1)
    assert (status, third["old_code"]) == (0, second["new_code"])
    assert adopted_codes(store, third["new_code"]) == [second["new_code"], first_code]
    done = copied.python("-c", CURRENT)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_code_that_makes_other_bytes_is_refused_at_the_first_difference(
    store: Store, workspace: Workspace, copied: Copy
) -> None:
    copied.edit(SIGNALS, '"text_chars": len(text),', '"text_chars": len(text) + text.startswith("square"),')
    before = keys(store)
    status, report = copied.adopt()
    assert (status, report["equal"]) == (1, False)
    partition = report["partitions"][-1]
    place = partition.partition("/")[2]
    ids = ids_of(store, place)
    # The texts of odd samples begin with the word.
    changed = [name for name in ids if int(name[-3:]) % 2]
    assert report["difference"].startswith(
        f"{partition}: signals.parquet: row {ids.index(changed[0])} (sample {changed[0]}), column text_chars: expected "
    )
    assert report["samples"] == changed
    assert new_keys(store, before) == []


def upgrade_codec(copied: Copy) -> None:
    """Another version of libwebp, as if it came in the wheel of a Pillow of the same version."""
    copied.edit("features/codecs.py", '"libwebp": pillow.version("webp"),', '"libwebp": "99.0",')


def test_codecs_that_decode_alike_are_adopted_and_nothing_behind_them_is_computed(
    store: Store, workspace: Workspace, copied: Copy
) -> None:
    assert copied.computed() == len(SHARDS)  # Embeddings, which did not exist yet.
    old = read_manifest(store, require_ref(store, "features", SHARDS[0]).manifest).environment
    upgrade_codec(copied)
    status, report = copied.adopt()
    assert (status, report["equal"]) == (0, True)
    assert report["environments"] == {"libwebp": {"old": old["libwebp"], "new": "99.0"}}
    assert copied.computed() == 0
    made = read_manifest(store, require_ref(store, "features", SHARDS[0]).manifest)
    assert made.environment == old, "it says what really made it"


def test_a_codec_that_decodes_otherwise_is_refused_with_the_samples_it_changes(
    store: Store, workspace: Workspace, copied: Copy
) -> None:
    upgrade_codec(copied)
    copied.edit(
        "modalities/text/decode.py",
        'return data.decode("utf-8").removeprefix("\\ufeff")',
        'return data.decode("utf-8").replace("number 6", "number 9")',
    )
    status, report = copied.adopt()
    assert (status, report["equal"]) == (1, False)
    assert report["difference"].startswith(
        f"r1/0000: signals.parquet: row {ids_of(store, '0000').index('shapes/d1/s006')} (sample shapes/d1/s006), "
        "column text_decode_digest: expected 'sha256:"
    )
    assert report["samples"] == ["shapes/d1/s006"]


def test_code_that_states_other_facts_about_the_same_bytes_is_refused(
    store: Store, workspace: Workspace, copied: Copy
) -> None:
    copied.edit(EXTRACT, '"rows_in": rows_in,', '"rows_in": rows_in + 1,')
    before = keys(store)
    status, report = copied.adopt()
    assert (status, report["equal"]) == (1, False)
    num_rows = len(ids_of(store, report["partitions"][-1].partition("/")[2]))
    assert f": stats: rows_in: expected {num_rows}, got {num_rows + 1}" in report["difference"]
    assert new_keys(store, before) == []


def refusal(workspace: Workspace, asset: str, num_samples: int = 1) -> str:
    with pytest.raises(UsageError) as caught:
        adopt(workspace, asset, num_samples=num_samples, environment_of=lambda asset, release: {}, by="me")
    return str(caught.value)


def test_what_cannot_be_adopted_says_why(store: Store, workspace: Workspace, moto_settings: Settings) -> None:
    assert "asset features: has nothing to compare" in refusal(workspace, "features")
    assert "asset registration: cannot be adopted" in refusal(workspace, "registration")
    assert "at least one sample" in refusal(workspace, "features", num_samples=0)
    assert "asset glue: is unknown" in refusal(workspace, "glue")
    for info in list(store.list_keys("checks/snapshot/")):
        store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{info.key}")
    sentence = refusal(Workspace(moto_settings, store), "features")
    assert "2 partitions were left out, the first because: snapshot r1/0000: was not checked" in sentence
    assert list(store.list_keys("adoptions/")) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([float("nan"), 1.0], [float("nan"), 2.0], "row 1, column x: expected 1.0, got 2.0"),
        ([0.0], [-0.0], "row 0, column x: expected 0.0, got -0.0"),
        ([1.0], [1.0, 2.0], "row 1: expected 1 rows, got 2"),
        ([float("nan"), None], [float("nan"), None], None),
    ],
)
def test_the_first_row_that_differs_is_named(old: Sequence[float], new: Sequence[float], expected: str | None) -> None:
    assert first_row(pa.table({"x": pa.array(old, pa.float64())}), pa.table({"x": pa.array(new, pa.float64())})) == (
        expected
    )


def test_samples_that_changed_came_or_went_are_named_by_id() -> None:
    old = pa.table({"id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]})
    new = pa.table({"id": ["b", "c", "d"], "x": [2.0, -3.0, 4.0]})
    assert changed_samples(old, new) == ("a", "c", "d")
    assert changed_samples(old.select(["x"]), new) == ()
