"""Laws of a snapshot: nothing lost, bytes untouched, same bytes every time, any number of shards."""

import json
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mm_assets.drops.collection import Collection
from mm_assets.drops.index import read_part
from mm_assets.drops.layout import lay_out
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import DropObject
from mm_assets.drops.rows import read_rows
from mm_assets.drops.samples import Rejection, Sample, VerifiedReader
from mm_assets.errors import ObjectCorruptError, ObjectMissingError, StageError, UsageError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.settings import Settings
from mm_assets.snapshot.compute import member_stem
from mm_assets.snapshot.preview import preview
from mm_assets.snapshot.shard import deal_tars
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets_tests.drops.raw_data import (
    deliver,
    drop_of,
    freeze,
    jsonl,
    make_folder,
    open_test_release,
    png,
    read_one_tar,
    snapshot_action,
    snapshot_findings,
    sound,
    tar_bytes,
)


def two_drops(store: Store, tmp_path: Path) -> None:
    """A WebDataset drop of three tars and an index drop of five rows, all good."""
    tars = {
        f"t{n}.tar": tar_bytes(
            [
                (f"t{n}.a.txt".replace(".a", "-a"), f"text {n}".encode()),
                (f"t{n}-a.png", png(shade=n)),
                (f"t{n}-a.json", json.dumps({"label": f"l{n}", "language": "de", "n": n}).encode()),
                (f"t{n}-b.wav", sound(seconds=0.05 + n / 100)),
            ]
        )
        for n in range(3)
    }
    deliver(store, make_folder(tmp_path / "wds", tars), source="wds")
    rows = [{"id": f"r{n}", "text": f"row {n}", "image": f"{n}.png", "group": "g"} for n in range(5)]
    files = {f"{n}.png": png(shade=100 + n) for n in range(5)}
    deliver(store, make_folder(tmp_path / "idx", files | {"index.jsonl": jsonl(*rows)}), source="idx")


def rows_of(store: Store, manifest: Manifest, name: str, tmp_path: Path) -> list[dict[str, Any]]:
    return read_parquet(store.fetch(manifest.output(name).digest, tmp_path / "o")).to_pylist()


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7])
def test_shards_partition_the_drops_for_any_number_of_them(
    store: Store, settings: Settings, tmp_path: Path, num_shards: int
) -> None:
    two_drops(store, tmp_path)
    spec = open_test_release(store, ("wds", "d1"), ("idx", "d1"), num_shards=num_shards)
    found: list[str] = []
    for shard in spec.shards():
        committed = freeze(store, spec, shard, settings)
        found.extend(row["id"] for row in rows_of(store, committed.manifest, "samples.parquet", tmp_path))
        assert committed.manifest.stats["dead_letters"] == 0
        assert all(finding.passed for finding in snapshot_findings(store, committed.manifest))
    assert sorted(found) == sorted(
        [f"wds/d1/t{n}-{x}" for n in range(3) for x in "ab"] + [f"idx/d1/r{n}" for n in range(5)]
    )


@pytest.mark.property
@given(num_tars=st.integers(0, 40), num_shards=st.integers(1, 50))
def test_every_tar_belongs_to_exactly_one_shard(num_tars: int, num_shards: int) -> None:
    objects = [DropObject(key=f"{n:03d}.tar", size_bytes=0, sha256="0" * 64) for n in range(num_tars)]
    drop = drop_of("webdataset", objects)
    dealt = deal_tars([drop], num_shards)
    assert len(dealt) == num_shards
    assert sorted(entry.key for shard in dealt for _, entry in shard) == [entry.key for entry in objects]
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_the_tar_reads_back_with_plain_tarfile_and_webdataset(store: Store, settings: Settings, tmp_path: Path) -> None:
    two_drops(store, tmp_path)
    spec = open_test_release(store, ("wds", "d1"), ("idx", "d1"))
    manifest = freeze(store, spec, "0000", settings).manifest
    rows = rows_of(store, manifest, "samples.parquet", tmp_path)
    path = store.fetch(manifest.output("samples.tar").digest, tmp_path / "o", "samples.tar")
    with tarfile.open(path) as archive:
        members = {info.name: info for info in archive}
        assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in members.values()} == {
            (0, 0, 0, "", "", 0o644)
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        read = {sample["__key__"]: sample for sample in webdataset.WebDataset(str(path), shardshuffle=False)}
    assert list(read) == [member_stem(row["id"]) for row in rows]
    data = path.read_bytes()
    for row in rows:
        sample = read[member_stem(row["id"])]
        described = json.loads(sample["json"])
        assert {name: described[name] for name in ("id", "label", "language", "group")} == {
            name: row[name] for name in ("id", "label", "language", "group")
        }
        assert described["metadata"] == json.loads(row["metadata"])
        for modality in ("text", "image", "audio"):
            assert row[f"has_{modality}"] == (
                row[f"{modality}_format"] in sample and row[f"{modality}_format"] is not None
            )
            if row[f"has_{modality}"]:
                start = row[f"{modality}_offset"]
                blob = data[start : start + row[f"{modality}_size_bytes"]]
                assert blob == sample[row[f"{modality}_format"]]
                assert digest_bytes(blob) == row[f"{modality}_digest"]


def test_blobs_are_the_raw_bytes(store: Store, settings: Settings, tmp_path: Path) -> None:
    raw = sound("OGG", 0.2)
    deliver(store, make_folder(tmp_path / "d", {"a.tar": tar_bytes([("x.ogg", raw), ("x.txt", "日本".encode())])}))
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    row = rows_of(store, manifest, "samples.parquet", tmp_path)[0]
    assert row["audio_digest"] == digest_bytes(raw)
    assert row["text_digest"] == digest_bytes("日本".encode())


def test_the_same_drop_gives_the_same_manifest_on_another_store(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    other = Store(client=store.client, bucket=store.bucket, prefix="elsewhere")
    digests: list[str] = []
    for number, place in enumerate((store, other)):
        two_drops(place, tmp_path / str(number))
        spec = open_test_release(place, ("wds", "d1"), ("idx", "d1"), num_shards=2)
        digests.append(freeze(place, spec, "0001", settings).manifest_digest)
    assert digests[0] == digests[1]


def test_an_empty_shard_is_a_valid_snapshot(store: Store, settings: Settings, tmp_path: Path) -> None:
    deliver(store, make_folder(tmp_path / "d", {"a.tar": tar_bytes([("x.txt", b"x")])}))
    spec = open_test_release(store, ("src", "d1"), num_shards=3)
    manifest = freeze(store, spec, "0002", settings).manifest
    assert manifest.stats["rows_in"] == 0
    findings = snapshot_findings(store, manifest)
    assert [finding.rule for finding in findings if not finding.passed] == []
    assert "| 0 | 0 | 0 | 0 | 0 |" in preview(store, manifest)


def test_a_shard_that_does_not_exist_is_refused(store: Store, settings: Settings, tmp_path: Path) -> None:
    deliver(store, make_folder(tmp_path / "d", {"a.tar": tar_bytes([("x.txt", b"x")])}))
    spec = open_test_release(store, ("src", "d1"), num_shards=3)
    with pytest.raises(UsageError, match="r1/0003: is not a shard of the release: expected 0000 to 0002"):
        snapshot_action(store, spec, "0003", settings)


def test_a_lost_object_fails_its_shard_and_only_it(store: Store, settings: Settings, tmp_path: Path) -> None:
    two_drops(store, tmp_path)
    spec = open_test_release(store, ("wds", "d1"), num_shards=3)
    store.client.delete_object(Bucket=store.bucket, Key="store/raw/wds/d1/t1.tar")
    with pytest.raises(ObjectMissingError, match=r"^raw/wds/d1/t1\.tar: is missing from the store: expected sha256:"):
        freeze(store, spec, "0001", settings)
    for shard in ("0000", "0002"):
        assert freeze(store, spec, shard, settings).manifest.stats["rows_out"] == 2


@pytest.mark.parametrize("key", ["t1.tar", "t0.tar"])
def test_a_changed_tar_fails_its_shard_with_its_name_and_both_digests(
    store: Store, settings: Settings, tmp_path: Path, key: str
) -> None:
    two_drops(store, tmp_path)
    spec = open_test_release(store, ("wds", "d1"))
    data = bytearray((tmp_path / "wds" / key).read_bytes())
    expected = digest_bytes(bytes(data))
    data[-1] ^= 1
    (tmp_path / "changed").write_bytes(data)
    store.upload_key(f"raw/wds/d1/{key}", tmp_path / "changed")
    with pytest.raises(ObjectCorruptError) as caught:
        freeze(store, spec, "0000", settings)
    message = str(caught.value)
    assert message.startswith(f"raw/wds/d1/{key}: ")
    assert expected in message
    assert digest_bytes(bytes(data)) in message
    assert "mm drop push" in message


def test_an_object_that_grew_is_not_read_to_its_end(store: Store, settings: Settings, tmp_path: Path) -> None:
    two_drops(store, tmp_path)
    spec = open_test_release(store, ("wds", "d1"))
    (tmp_path / "longer").write_bytes((tmp_path / "wds" / "t0.tar").read_bytes() + bytes(100))
    store.upload_key("raw/wds/d1/t0.tar", tmp_path / "longer")
    with pytest.raises(ObjectCorruptError, match=r"raw/wds/d1/t0\.tar: .*got more than \d+ bytes"):
        freeze(store, spec, "0000", settings)


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_loose_file_that_is_gone_or_changed_fails_its_shard_and_only_it(
    store: Store, settings: Settings, tmp_path: Path, damage: str
) -> None:
    two_drops(store, tmp_path)
    spec = open_test_release(store, ("idx", "d1"), num_shards=5)
    if damage == "missing":
        store.client.delete_object(Bucket=store.bucket, Key="store/raw/idx/d1/3.png")
    else:
        store.upload_key("raw/idx/d1/3.png", tmp_path / "idx" / "4.png")
    with pytest.raises((ObjectMissingError, ObjectCorruptError), match=r"^raw/idx/d1/3\.png: "):
        freeze(store, spec, "0003", settings)
    assert freeze(store, spec, "0002", settings).manifest.stats["rows_out"] == 1


def test_a_changed_index_fails_its_shards_with_its_name(store: Store, settings: Settings, tmp_path: Path) -> None:
    two_drops(store, tmp_path)
    spec = open_test_release(store, ("idx", "d1"))
    (tmp_path / "other").write_bytes(jsonl({"id": "1", "text": "x"}))
    store.upload_key("raw/idx/d1/index.jsonl", tmp_path / "other")
    with pytest.raises(ObjectCorruptError, match=r"^raw/idx/d1/index\.jsonl: "):
        freeze(store, spec, "0000", settings)


def test_too_many_members_fail_the_shard_with_the_name_of_the_tar(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    deliver(store, make_folder(tmp_path / "d", {"a.tar": tar_bytes([(f"{n}.txt", b"x") for n in range(5)])}))
    spec = open_test_release(store, ("src", "d1"), config=SnapshotConfig(max_tar_members=4))
    with pytest.raises(StageError, match=r"a\.tar: has too many members: expected at most 4"):
        freeze(store, spec, "0000", settings)


def test_two_objects_of_a_shard_cannot_both_have_an_id(store: Store, settings: Settings, tmp_path: Path) -> None:
    tars = {f"{name}.tar": tar_bytes([("x.txt", name.encode())]) for name in ("a", "b")}
    deliver(store, make_folder(tmp_path / "d", tars))
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    samples = rows_of(store, manifest, "samples.parquet", tmp_path)
    letters = rows_of(store, manifest, "dead_letters.parquet", tmp_path)
    assert [row["object"] for row in samples] == ["raw/src/d1/a.tar"]
    assert [(letter["object"], letter["reason"]) for letter in letters] == [("raw/src/d1/b.tar", "duplicate_id")]


def test_the_gate_fails_when_too_many_samples_were_rejected(store: Store, settings: Settings, tmp_path: Path) -> None:
    members = [(f"{n}.txt", b"\xff" if n else b"ok") for n in range(4)]
    deliver(store, make_folder(tmp_path / "d", {"a.tar": tar_bytes(members)}))
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    failed = [finding for finding in snapshot_findings(store, manifest) if not finding.passed]
    assert [finding.rule for finding in failed] == ["max_dead_letter_fraction"]
    assert "3 of 4 samples are dead letters (75.00%)" in failed[0].detail


def test_the_gate_finds_a_tar_that_does_not_match_its_table(store: Store, settings: Settings, tmp_path: Path) -> None:
    members = [(f"{n}.txt", f"text {n}".encode()) for n in range(3)]
    deliver(store, make_folder(tmp_path / "d", {"a.tar": tar_bytes(members)}))
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    path = store.fetch(manifest.output("samples.tar").digest, tmp_path / "o", "samples.tar")
    digest = store.put_bytes(path.read_bytes().replace(b"text 1", b"texT 1"))
    outputs = [
        output.model_copy(update={"digest": digest}) if output.name == "samples.tar" else output
        for output in manifest.outputs
    ]
    findings = snapshot_findings(store, manifest.model_copy(update={"outputs": outputs}))
    failed = [finding for finding in findings if not finding.passed]
    assert [(finding.rule, finding.failing_ids) for finding in failed] == [("blobs match their digests", ("src/d1/1",))]


def test_the_preview_shows_the_pictures_and_skips_broken_ones(store: Store, settings: Settings, tmp_path: Path) -> None:
    members = [(f"{n:02d}.png", png(40, 30, shade=n * 9)) for n in range(30)] + [("cut.png", png(64, 64)[:60])]
    deliver(store, make_folder(tmp_path / "d", {"a.tar": tar_bytes(members)}))
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    text = preview(store, manifest)
    assert "24 pictures of the shard" in text
    assert "data:image/png;base64," in text
    assert len(text) < 90_000
    assert text == preview(store, manifest)


def test_the_preview_shows_every_picture_of_a_sample(store: Store, settings: Settings, tmp_path: Path) -> None:
    members = [(f"a.{number}.png", png(40, 30, shade=number * 9)) for number in range(3)] + [("b.png", png(30, 40))]
    deliver(store, make_folder(tmp_path / "d", {"a.tar": tar_bytes(members)}))
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    assert "4 pictures of the shard" in preview(store, manifest)


# Laws over any members.

EXTENSIONS = ("txt", "png", "wav", "json", "cls", "npy")
MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d/e", "f"]),
        st.sampled_from(EXTENSIONS),
        st.sampled_from([b"", b"text", b"\xff", png(), sound(), b'{"label":"x"}', b'{"label":1}']),
    ),
    max_size=14,
)


def read_members(tmp_path: Path, members: list[tuple[str, str, bytes]]) -> list[Sample | Rejection]:
    return read_one_tar(tar_bytes([(f"{key}.{extension}", blob) for key, extension, blob in members]), tmp_path)


def runs(members: list[tuple[str, str, bytes]]) -> Iterator[tuple[str, set[str]]]:
    """Neighbouring members of one key that do not repeat an extension."""
    current: tuple[str, set[str]] | None = None
    for key, extension, _ in members:
        if current is None or current[0] != key or extension in current[1]:
            if current is not None:
                yield current
            current = (key, set())
        current[1].add(extension)
    if current is not None:
        yield current


@pytest.mark.property
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=MEMBERS)
def test_every_sample_of_a_tar_is_in_exactly_one_of_samples_and_rejections(
    tmp_path: Path, members: list[tuple[str, str, bytes]]
) -> None:
    made = read_members(tmp_path, members)
    rejected = [item for item in made if isinstance(item, Rejection)]
    seen: dict[str, set[str]] = {}
    num_repeated = 0
    for key, extensions in runs(members):
        if seen.setdefault(key, set()) & extensions:
            num_repeated += 1
        else:
            seen[key] |= extensions
    repeated = [rejection for rejection in rejected if rejection.reason == "duplicate_id"]
    others = [rejection.key for rejection in rejected if rejection.reason != "duplicate_id"]
    assert len(repeated) == num_repeated
    samples = [item.key for item in made if isinstance(item, Sample)]
    assert sorted(samples + [str(key) for key in others]) == sorted(seen)


@pytest.mark.property
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"id": st.text(max_size=3)},
            optional={"text": st.text(max_size=5) | st.none(), "image": st.sampled_from(["1.png", "no.png", ""])},
        ),
        max_size=12,
    ),
    num_shards=st.integers(1, 5),
)
def test_every_row_of_an_index_is_in_exactly_one_list_of_one_shard(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], num_shards: int
) -> None:
    folder = make_folder(tmp_path_factory.mktemp("rows"), {"1.png": png(), "index.jsonl": jsonl(*rows)})
    objects = [
        DropObject(key=path.name, size_bytes=path.stat().st_size, sha256=digest_bytes(path.read_bytes())[7:])
        for path in sorted(folder.iterdir())
    ]
    drop = drop_of("index", objects)
    index = folder / "index.jsonl"
    layout = lay_out(index, "index.jsonl", num_shards, tmp_path_factory.mktemp("ids"))

    def opened(entry: DropObject) -> VerifiedReader:
        return VerifiedReader((folder / entry.key).open("rb"), entry, entry.key)

    lines: list[int] = []
    num_samples = 0
    for shard in range(num_shards):
        parts = [layout.parts[number] for number in layout.parts_of(shard, num_shards)]
        read = (row for part in parts for row in read_part(index, "index.jsonl", part))
        with Collection(tmp_path_factory.mktemp("found"), SnapshotConfig()) as found:
            read_rows(read, drop, opened, found, repeated=layout.repeated)
            for _, made in found.read_back():
                num_samples += isinstance(made, Sample)
                lines += [made.line or 0] if isinstance(made, Rejection) else []
    assert num_samples + len(lines) == len(rows)
    assert len(set(lines)) == len(lines)


@pytest.mark.property
@given(one=st.text(max_size=8), other=st.text(max_size=8))
def test_member_names_are_one_to_one_and_safe(one: str, other: str) -> None:
    stem = member_stem(f"s/d/{one}")
    assert stem.isascii()
    assert not set(stem) & set("./\\\0")
    assert (stem == member_stem(f"s/d/{other}")) == (one == other)
