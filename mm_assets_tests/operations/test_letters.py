"""Dead letters: what is listed about them, where their bytes are, and replaying them without touching good samples."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mm_assets import configurations
from mm_assets.checks.exclusions import EXCLUSIONS, Exclusions
from mm_assets.checks.rules import replace_rules
from mm_assets.configurations import SMOKE, ReleaseRequest, open_named_release
from mm_assets.drops.create import create_drop, push_drop
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.errors import CheckError, UsageError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.identity.code import ROOT
from mm_assets.lineage.letters import LetterFilter, find_letter, group_letters, read_letters
from mm_assets.materialize import Workspace
from mm_assets.operations.replay_letters import _stage_shard, replay_letters
from mm_assets.pipeline import OPTIONAL_RULES
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref, require_ref
from mm_assets.store.tables import read_parquet
from mm_assets_tests.operations.test_adopt import Copy

ANY = LetterFilter()
LENIENT = b"expectations: {disabled: small data}\nmax_dead_letter_fraction: 0.5\n"


@pytest.fixture
def workspace(store: Store, settings: Settings) -> Workspace:
    return Workspace(replace(settings, num_shards=2), store)


def push(store: Store, tmp_path: Path, to_picture: Callable[..., bytes], blocks: Callable[..., Any]) -> None:
    """Nine samples: one names a file that is not there, one has a cut picture, one a long text."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    rows = []
    for number in range(9):
        data = to_picture(blocks(number))
        (folder / f"{number}.png").write_bytes(data[: len(data) // 2] if number == 3 else data)
        text = "a long text " * 20 if number == 4 else f"text {number}"
        rows.append({"id": f"k{number}", "image": f"{number}.png", "text": text})
    (folder / "7.png").unlink()
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    create_drop(folder, "shapes", "d1")
    push_drop(store, folder)


SMALL = SnapshotConfig(max_text_bytes=100)


@pytest.fixture
def shards(
    workspace: Workspace, tmp_path: Path, to_picture: Any, make_blocks: Any, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """Release r1 of two shards under a small ceiling on texts, made as far as its features."""
    push(workspace.store, tmp_path, to_picture, make_blocks)
    monkeypatch.setitem(configurations.CONFIGURATIONS, "small", replace(SMOKE, snapshot=SMALL))
    monkeypatch.setitem(configurations.CONFIGURATIONS, "large", SMOKE)
    open_named_release(
        workspace, ReleaseRequest(release="r1", drops=(("shapes", "d1"),), configuration="small", num_shards=2)
    )
    files = {"snapshot.yaml": LENIENT, "features.yaml": LENIENT}
    replace_rules(workspace.store, "r1", workspace.rules("r1"), files, reason="tests", by="ada")
    return make(Workspace(workspace.settings, workspace.store), "r1")


def make(workspace: Workspace, release: str) -> Workspace:
    for shard in workspace.spec(release).shards():
        for asset in ("snapshot", "features"):
            workspace.run(asset, Partition(release=release, shard=shard), environment={})
            record = workspace.check(asset, Partition(release=release, shard=shard))
            assert record.passed, record.failures
    return workspace


def ids(workspace: Workspace, release: str, tmp_path: Path, *shards: str) -> set[str]:
    found: set[str] = set()
    for shard in shards or workspace.spec(release).shards():
        ref = require_ref(workspace.store, "features", Partition(release=release, shard=shard))
        manifest = read_manifest(workspace.store, ref.manifest)
        path = workspace.store.fetch(manifest.output("signals.parquet").digest, tmp_path)
        found |= {name.rsplit("/", 1)[1] for name in read_parquet(path, ["id"])["id"].to_pylist()}
    return found


def test_letters_are_grouped_and_filtered(shards: Workspace) -> None:
    letters = list(read_letters(shards.store, "r1", ANY))
    assert {letter["id"]: letter["reason"] for letter in letters} == {
        "shapes/d1/k3": "truncated", "shapes/d1/k4": "too_large", "shapes/d1/k7": "missing_file",
    }  # fmt: skip
    assert {letter["stage"] for letter in letters} >= {"snapshot"}
    groups = group_letters(letters)
    assert sum(int(str(group["num_letters"])) for group in groups) == 3
    assert {(group["source"], group["drop"]) for group in groups} == {("shapes", "d1")}
    assert [row["id"] for row in read_letters(shards.store, "r1", LetterFilter(modality="text"))] == ["shapes/d1/k4"]
    assert [row["id"] for row in read_letters(shards.store, "r1", LetterFilter(reason="missing_file"))] == [
        "shapes/d1/k7"
    ]
    assert list(read_letters(shards.store, "r1", LetterFilter(source="other"))) == []


def test_a_letter_says_where_its_bytes_are(shards: Workspace) -> None:
    [text] = find_letter(shards.store, "r1", "k4")
    assert text["place"]["uri"] == shards.store.uri("raw/shapes/d1/index.jsonl")
    assert text["place"]["line"] == 5
    [picture] = find_letter(shards.store, "r1", "shapes/d1/k3")
    place = picture["place"]
    tar = shards.store.get_bytes("sha256:" + place["shard_tar"].rsplit("/", 1)[1])
    blob = tar[place["offset"] : place["offset"] + place["size_bytes"]]
    assert digest_bytes(blob) == picture["digest"]
    assert find_letter(shards.store, "r1", picture["digest"]) == [picture]
    with pytest.raises(UsageError, match="dead letter k1: is not one of release r1"):
        find_letter(shards.store, "r1", "k1")


def test_replay_after_nothing_changed_computes_nothing(shards: Workspace) -> None:
    report = replay_letters(shards, "r1", ANY)
    assert (report.computed, report.recovered) == ((), ())
    assert report.still_dead == ("shapes/d1/k3", "shapes/d1/k4", "shapes/d1/k7")


def test_replay_under_other_ceilings_recovers_what_they_let_in(shards: Workspace, tmp_path: Path) -> None:
    before = ids(shards, "r1", tmp_path)
    report = replay_letters(shards, "r1", LetterFilter(reason="too_large"), into="r2", configuration="large")
    assert (report.release, report.recovered, report.still_dead) == ("r2", ("shapes/d1/k4",), ())
    assert report.computed == ("r2/0000",)
    # Its rules were replaced since it was opened: those in force are taken over.
    assert shards.spec("r2").rules == shards.rules("r1").digests != shards.spec("r1").rules
    assert ids(shards, "r2", tmp_path, "0000") == {"k0", "k2", "k4", "k6", "k8"}
    assert ids(shards, "r1", tmp_path) == before


def test_budgets_of_sources_are_judged_apart(shards: Workspace) -> None:
    files = {"snapshot.yaml": LENIENT.replace(b"0.5", b"{default: 0.5, sources: {shapes: 0.1}}")}
    replace_rules(shards.store, "r1", shards.rules("r1"), files, reason="stricter", by="ada")
    fresh = Workspace(shards.settings, shards.store)
    record = fresh.check("snapshot", Partition(release="r1", shard="0000"))
    assert "source shapes: 1 of 5 samples are dead letters (20.00%); 10.00% are allowed" in record.failures
    excluded = Exclusions(samples={"shapes/d1/k[47]": "known", "shapes/d1/k3": "cut"}).encode()
    replace_rules(
        shards.store, "r1", fresh.rules("r1"), {EXCLUSIONS: excluded}, reason="known", by="ada", optional=OPTIONAL_RULES
    )
    record = Workspace(shards.settings, shards.store).check("snapshot", Partition(release="r1", shard="0000"))
    assert record.passed
    assert any(finding["rule"] == "exclusions" for finding in record.findings)


def test_an_exclusion_makes_the_checks_of_no_other_shard_run_again(shards: Workspace) -> None:
    files = {"features.yaml": LENIENT.replace(b"0.5", b"0.1")}
    replace_rules(shards.store, "r1", shards.rules("r1"), files, reason="stricter", by="ada")
    fresh = Workspace(shards.settings, shards.store)
    partitions = [Partition(release="r1", shard=shard) for shard in ("0000", "0001")]
    before = {partition: fresh.check("features", partition) for partition in partitions}
    [failed] = [partition for partition, record in before.items() if not record.passed]
    [passed] = [partition for partition in partitions if partition != failed]
    excluded = {EXCLUSIONS: Exclusions(samples={"shapes/d1/k3": "cut"}).encode()}
    replace_rules(shards.store, "r1", fresh.rules("r1"), excluded, reason="known", by="ada", optional=OPTIONAL_RULES)
    after = Workspace(shards.settings, shards.store)
    assert after.require_passed("features", passed)
    assert after.check("features", passed) == before[passed]
    with pytest.raises(CheckError, match="was not checked under the rules in force"):
        after.require_passed("features", failed)
    assert after.check("features", failed).passed
    assert after.require_passed("features", failed)
    again = {EXCLUSIONS: Exclusions(samples={"shapes/d1/k3": "cut", "shapes/d1/k0": "more"}).encode()}
    replace_rules(shards.store, "r1", after.rules("r1"), again, reason="more", by="ada", optional=OPTIONAL_RULES)
    assert Workspace(shards.settings, shards.store).require_passed("features", passed)


#: Makes and checks the shards of r1 as far as their features.
MAKE = """
from mm_assets.materialize import Workspace
from mm_assets.settings import read_settings
from mm_assets.store.manifest import Partition
for shard in ("0000", "0001"):
    for asset in ("snapshot", "features"):
        workspace, partition = Workspace(read_settings()), Partition(release="r1", shard=shard)
        workspace.run(asset, partition, environment={})
        assert workspace.check(asset, partition).passed
"""
HEADER = "    header = read_header(data, max_pixels=config.max_image_pixels)\n"
BUG = """    import hashlib
    if hashlib.sha256(data).hexdigest() == "{digest}":
        raise BlobRejectedError(Refusal("undecodable", "a bug"))
"""
DARKER = ("DecodedImage(rgb=_to_rgb(image))", "DecodedImage(rgb=_to_rgb(image).point(lambda value: value // 2))")


@pytest.fixture
def copied(tmp_path: Path) -> Copy:
    shutil.copytree(ROOT, tmp_path / "copy" / ROOT.name, ignore=shutil.ignore_patterns("__pycache__"))
    return Copy(folder=tmp_path / "copy")


@pytest.fixture
def fixed(store: Store, moto_settings: Settings, push_samples: Callable[..., Path], copied: Copy) -> Workspace:
    """Release r1, opened; a copy of the package refuses one good picture of it, this package does not."""
    folder = push_samples(store, "shapes", "d1", num_samples=6)
    workspace = Workspace(moto_settings, store)
    open_named_release(
        workspace, ReleaseRequest(release="r1", drops=(("shapes", "d1"),), configuration="smoke", num_shards=2)
    )
    files = {"snapshot.yaml": LENIENT, "features.yaml": LENIENT}
    replace_rules(store, "r1", workspace.rules("r1"), files, reason="tests", by="ada")
    digest = hashlib.sha256((folder / "s002.png").read_bytes()).hexdigest()
    copied.edit("modalities/image/decode.py", HEADER, BUG.format(digest=digest) + HEADER)
    return Workspace(moto_settings, store)


def made_by(copied: Copy, store: Store) -> dict[str, Ref]:
    done = copied.python("-c", MAKE)
    assert done.returncode == 0, done.stderr
    return {shard: require_ref(store, "features", Partition(release="r1", shard=shard)) for shard in ("0000", "0001")}


@pytest.mark.integration
def test_after_a_fix_of_the_code_only_the_shard_with_the_letter_is_computed(
    fixed: Workspace, copied: Copy, tmp_path: Path
) -> None:
    before = made_by(copied, fixed.store)
    assert "s002" not in ids(fixed, "r1", tmp_path)
    report = replay_letters(fixed, "r1", ANY)
    assert (report.recovered, report.still_dead) == (("shapes/d1/s002",), ())
    assert report.computed == ("r1/0000",)
    assert ids(fixed, "r1", tmp_path) == {f"s{number:03d}" for number in range(6)}
    assert require_ref(fixed.store, "features", Partition(release="r1", shard="0001")) == before["0001"]


@pytest.mark.integration
def test_a_fix_that_changes_good_samples_commits_nothing(fixed: Workspace, copied: Copy) -> None:
    copied.edit("modalities/image/decode.py", *DARKER)
    before = made_by(copied, fixed.store)
    named = "the fix changes 2 samples that were good: shapes/d1/s000, shapes/d1/s004"
    with pytest.raises(CheckError, match=named):
        replay_letters(fixed, "r1", ANY)
    assert require_ref(fixed.store, "features", Partition(release="r1", shard="0000")) == before["0000"]


#: Refuses the same picture in the snapshot already.
EARLY_HEADER = "    found = read_header(data, max_pixels=limits.max_image_pixels)\n"
EARLY_BUG = """    import hashlib
    if hashlib.sha256(data).hexdigest() == "{digest}":
        return Refusal("unsupported_format", "a bug")
"""


@pytest.fixture
def early(fixed: Workspace, copied: Copy, tmp_path: Path) -> Workspace:
    """As ``fixed``, but the picture is refused by the snapshot."""
    digest = hashlib.sha256(fixed.store.read_key("raw/shapes/d1/s002.png").data).hexdigest()  # pyright: ignore[reportOptionalMemberAccess]
    copied.edit("modalities/image/header.py", EARLY_HEADER, EARLY_BUG.format(digest=digest) + EARLY_HEADER)
    return fixed


def known_of(store: Store) -> dict[str, bytes]:
    """Every ref, and every action that led to a snapshot or features."""
    infos = [info for prefix in ("refs/", "actions/") for info in store.list_keys(prefix)]
    found = {info.key: read.data for info in infos if (read := store.read_key(info.key)) is not None}
    tables = (b'"samples.parquet"', b'"signals.parquet"')
    return {key: data for key, data in found.items() if key.startswith("refs/") or any(name in data for name in tables)}


@pytest.mark.integration
def test_features_that_change_good_samples_leave_the_snapshot_as_it_was(early: Workspace, copied: Copy) -> None:
    copied.edit("modalities/image/decode.py", *DARKER)
    made_by(copied, early.store)
    before = known_of(early.store)
    with pytest.raises(CheckError, match="features r1/0000: the fix changes 2 samples that were good: .* Nothing was"):
        replay_letters(early, "r1", ANY)
    assert known_of(early.store) == before


@pytest.mark.integration
def test_features_that_cannot_be_computed_leave_the_snapshot_as_it_was(
    early: Workspace, copied: Copy, tmp_path: Path
) -> None:
    made_by(copied, early.store)
    before = known_of(early.store)
    failing = Copy(folder=tmp_path / "failing")
    shutil.copytree(ROOT, failing.folder / ROOT.name, ignore=shutil.ignore_patterns("__pycache__"))
    failing.edit("features/extract.py", "    config = ", "    raise ValueError('not today')\n    config = ")
    done = failing.python("-m", "mm_assets.cli", "deadletter", "replay", "--release", "r1")
    assert "ValueError: not today" in done.stderr
    assert known_of(early.store) == before
    assert replay_letters(early, "r1", ANY).recovered == ("shapes/d1/s002",)


@pytest.mark.integration
def test_a_replay_that_was_killed_while_it_committed_is_finished_by_the_next(
    early: Workspace, copied: Copy, tmp_path: Path
) -> None:
    made_by(copied, early.store)
    partition = Partition(release="r1", shard="0000")
    (_, snapshot), (attempt, features) = _stage_shard(early, partition, partition)
    attempt.commit_staged(features)
    report = replay_letters(Workspace(early.settings, early.store), "r1", ANY)
    assert (report.computed, report.recovered, report.still_dead) == (("r1/0000",), ("shapes/d1/s002",), ())
    assert require_ref(early.store, "features", partition).content == features.ref.content
    assert require_ref(early.store, "snapshot", partition).content == snapshot.ref.content
    assert ids(early, "r1", tmp_path) == {f"s{number:03d}" for number in range(6)}
