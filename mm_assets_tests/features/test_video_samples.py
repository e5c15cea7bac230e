"""Videos through the shards: ranges of time of one blob that is stored once, their sound, and what is refused."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_assets.checks.rules import Rules
from mm_assets.drops.check import check_drop
from mm_assets.drops.create import create_drop
from mm_assets.features.blobs import TarBlobs
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.extract import compute_features, extract_shard
from mm_assets.features.preview import preview
from mm_assets.features.validate import validate_embeddings, validate_features
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.video.frames import times_us
from mm_assets.settings import Settings
from mm_assets.snapshot.blobs import BlobRef
from mm_assets.snapshot.preview import preview as snapshot_preview
from mm_assets.store.commit import Attempt, Committed
from mm_assets.store.job import Job
from mm_assets.store.objects import Store
from mm_assets.store.tables import map_arrow, read_parquet
from mm_assets_tests.by_hand import action_of, input_of
from mm_assets_tests.drops.raw_data import (
    deliver,
    freeze,
    jsonl,
    make_folder,
    open_test_release,
    snapshot_findings,
    sound,
    tar_bytes,
)
from mm_assets_tests.features.conftest import PARTITION, params_of
from mm_assets_tests.videos import video

FILM = video(sound="aac")
#: Two scenes of one film, one with a sound file of its own, a whole film, and ranges that are none.
ROWS = [
    {"id": "a", "video": "film.mp4", "start_s": 0, "end_s": 1.0, "text": "first scene", "kept": 1},
    {"id": "b", "video": "film.mp4", "start_s": "1.0", "label": "late"},
    {"id": "c", "video": "film.mp4", "start_s": 0.5, "end_s": 1.5, "audio": "own.wav", "group": "mine"},
    {"id": "whole", "video": "silent.webm"},
    {"id": "talk", "audio": "own.wav", "start_s": 3.0},
    {"id": "x-backwards", "video": "film.mp4", "start_s": 1.5, "end_s": 0.5},
    {"id": "x-text", "video": "film.mp4", "start_s": "soon"},
    {"id": "x-beyond", "video": "film.mp4", "start_s": 30},
    {"id": "x-broken", "video": "broken.mp4"},
]
FILES = {
    "film.mp4": FILM,
    "silent.webm": video("webm", "libvpx"),
    "own.wav": sound(seconds=0.5),
    "broken.mp4": FILM[:900],
}


@pytest.fixture
def shard(store: Store, settings: Settings, tmp_path: Path) -> Committed:
    folder = make_folder(tmp_path / "drop", {"index.jsonl": jsonl(*ROWS), **FILES})
    deliver(store, folder)
    return freeze(store, open_test_release(store, ("src", "d1")), "0000", settings)


def rows_of(store: Store, committed: Committed, name: str, folder: Path) -> dict[str, dict[str, Any]]:
    table = read_parquet(store.fetch(committed.manifest.output(name).digest, folder))
    return {row["id"].rsplit("/", 1)[-1]: row for row in table.to_pylist()}


def features_of(store: Store, snapshot: Committed, folder: Path) -> Committed:
    action = action_of("features", [input_of(snapshot)], params_of(FeaturesConfig()))
    folder.mkdir()
    result = compute_features(Job(store=store, action=action, workdir=folder))
    return Attempt(store, action, PARTITION).commit_result(result)


def test_ranges_of_time_share_one_blob_and_one_group(store: Store, shard: Committed, tmp_path: Path) -> None:
    rows = rows_of(store, shard, "samples.parquet", tmp_path)
    assert {name: (row["video_start_us"], row["video_end_us"]) for name, row in rows.items()} == {
        "a": (0, 1_000_000), "b": (1_000_000, None), "c": (500_000, 1_500_000), "whole": (None, None),
        "talk": (None, None), "x-beyond": (30_000_000, None),
    }  # fmt: skip
    assert rows["a"]["video_offset"] == rows["b"]["video_offset"] == rows["c"]["video_offset"]
    # Scenes of one film stay on one side of a split, unless their owner says otherwise.
    assert rows["a"]["group"] == rows["b"]["group"] == rows["a"]["video_digest"]
    assert (rows["c"]["group"], rows["whole"]["group"]) == ("mine", None)
    assert json.loads(rows["a"]["metadata"]) == {"kept": 1}
    assert json.loads(rows["talk"]["metadata"]) == {"start_s": 3.0}
    with tarfile.open(store.fetch(shard.manifest.output("samples.tar").digest, tmp_path)) as tar:
        names = [name.removeprefix("src%2Fd1%2F") for name in tar.getnames()]
        assert [name for name in names if name.endswith((".mp4", ".webm"))] == ["a.mp4", "whole.webm"]
        described = json.loads(tar.extractfile("src%2Fd1%2Fb.json").read())  # pyright: ignore[reportOptionalMemberAccess]
    assert described["time_range"] == {"member": "src%2Fd1%2Fa.mp4", "start_us": 1_000_000, "end_us": None}


def test_ranges_that_are_none_are_dead_letters(store: Store, shard: Committed, tmp_path: Path) -> None:
    letters = rows_of(store, shard, "dead_letters.parquet", tmp_path)
    assert {name: row["reason"] for name, row in letters.items()} == {
        "x-backwards": "bad_time_range", "x-text": "bad_time_range", "x-broken": "truncated",
    }  # fmt: skip
    assert letters["x-backwards"]["detail"] == (
        "time range from 1.5 s to 0.5 s has no length: end_s must be greater than start_s"
    )
    assert letters["x-text"]["detail"] == "start_s is 'soon'; seconds from 0 on are expected"
    folder = make_folder(tmp_path / "again", {"index.jsonl": jsonl(ROWS[5]), "film.mp4": FILM})
    create_drop(folder, "src", "d2")
    assert "has no length" in str(check_drop(folder).problems[0])


def test_the_check_of_a_snapshot_knows_shared_blobs(store: Store, shard: Committed) -> None:
    passed = {finding.rule: finding.passed for finding in snapshot_findings(store, shard.manifest)}
    assert passed["samples.tar matches samples.parquet"]
    assert passed["blobs match their digests"]
    assert shard.manifest.stats["modalities"] == {"text": 1, "image": 0, "audio": 2, "video": 5}
    assert "pictures of the shard" in snapshot_preview(store, shard.manifest)


def test_features_of_a_range_of_time_are_on_its_clock(
    store: Store, shard: Committed, tmp_path: Path, rules: Rules
) -> None:
    made = features_of(store, shard, tmp_path / "features")
    signals = rows_of(store, made, "signals.parquet", tmp_path)
    assert list(signals) == ["a", "b", "c", "talk", "whole"]
    assert made.manifest.stats["modalities"] == {"text": 1, "image": 0, "audio": 4, "video": 4}
    letters = rows_of(store, made, "dead_letters.parquet", tmp_path)
    assert {name: (row["modality"], row["reason"]) for name, row in letters.items()} == {
        "x-beyond": ("video", "bad_time_range")
    }
    assert {name: (row["audio_origin"], row["video_has_sound"]) for name, row in signals.items()} == {
        "a": ("video", True), "b": ("video", True), "c": ("file", True), "talk": ("file", None), "whole": (None, False),
    }  # fmt: skip
    # 100 frames of sound a second, from the time range's start; the sound file of `c` has half a second.
    assert [signals[name]["audio_frames"] for name in "abc"] == [100, 100, 50]
    assert signals["b"]["video_frame_times_us"][:2] == [40_000, 160_000]
    assert signals["a"]["video_decode_digest"] != signals["b"]["video_decode_digest"]
    tensors = map_arrow(store.fetch(made.manifest.output("tensors.arrow").digest, tmp_path))
    assert tensors.schema.metadata[b"video_size"] == b"64"
    stored = np.frombuffer(tensors["video"][1].as_buffer(), np.uint8).reshape(8, -1)
    assert times_us(stored).tolist() == signals["b"]["video_frame_times_us"]
    passed = {finding.rule: finding.passed for finding in validate_features(store, made.manifest, rules)}
    assert passed["tensors"]
    assert "| 5 | 1 | 0 | 4 | 4 |" in preview(store, made.manifest)


def test_videos_in_a_tar_read_their_range_from_the_description(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    members = [("s.json", json.dumps({"start_s": 0.5, "end_s": 1, "note": "n"}).encode()), ("s.mp4", FILM)]
    make_folder(tmp_path / "drop", {"a.tar": tar_bytes([*members, ("t.mp4", FILM)])})
    deliver(store, tmp_path / "drop")
    shard = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings)
    rows = rows_of(store, shard, "samples.parquet", tmp_path)
    assert (rows["s"]["video_start_us"], rows["s"]["video_end_us"], rows["t"]["video_start_us"]) == (
        500_000, 1_000_000, None,
    )  # fmt: skip
    assert json.loads(rows["s"]["metadata"]) == {"note": "n"}
    assert all(finding.passed for finding in snapshot_findings(store, shard.manifest))


def test_videos_are_embedded(
    store: Store, embed: Callable[..., tuple[Committed, Committed]], tmp_path: Path, rules: Rules
) -> None:
    _, made = embed({"s/d/a": {"mp4": FILM, "txt": b"a film"}, "s/d/b": {"mp4": FILM}, "s/d/c": {"txt": b"text"}})
    assert all(finding.passed for finding in validate_embeddings(store, made.manifest, rules))
    rows = rows_of(store, made, "embeddings.parquet", tmp_path)
    assert rows["a"]["video"] == rows["b"]["video"] != rows["c"]["video"]
    assert rows["b"]["audio"] is not None


def test_videos_among_the_parts_of_a_sample_have_their_sound_behind_them(
    store: Store, settings: Settings, tmp_path: Path, rules: Rules
) -> None:
    rows = [
        {"id": "two", "video": ["film.mp4", "silent.webm"], "text": "both"},
        {"id": "plain", "text": "alone"},
        {"id": "x", "video": ["film.mp4", "silent.webm"], "start_s": 1},
    ]
    deliver(store, make_folder(tmp_path / "drop", {"index.jsonl": jsonl(*rows), **FILES}))
    shard = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings)
    letters = rows_of(store, shard, "dead_letters.parquet", tmp_path)
    assert letters["x"]["detail"] == "sample has 2 videos; start_s and end_s are about one"
    made = features_of(store, shard, tmp_path / "features")
    signals = rows_of(store, made, "signals.parquet", tmp_path)["two"]
    assert [(part["modality"], part["length"]) for part in signals["parts"]] == [
        ("video", 8), ("audio", 200), ("video", 8), ("text", 6),
    ]  # fmt: skip
    assert (signals["video_frames"], signals["video_seconds"], signals["audio_origin"]) == (16, 4.0, "video")
    passed = {finding.rule: finding.passed for finding in validate_features(store, made.manifest, rules)}
    assert passed["tensors"]


class CountedBlobs(TarBlobs):
    """Says how often a blob was read."""

    num_reads = 0

    def read(self, ref: BlobRef) -> bytes:
        self.num_reads += 1
        return super().read(ref)


def test_ranges_of_one_video_are_read_and_judged_once(tmp_path: Path) -> None:
    path = tmp_path / "blobs"
    path.write_bytes(FILM)
    blob = {"video_digest": digest_bytes(FILM), "video_offset": 0, "video_size_bytes": len(FILM), "video_format": "mp4"}
    rows = [
        {"id": f"s/d/{number}", "object": "o", **blob, "video_start_us": number * 100_000, "video_end_us": None}
        for number in range(5)
    ]
    with CountedBlobs(path) as blobs:
        made = extract_shard(pa.Table.from_pylist(rows), blobs, FeaturesConfig(), tmp_path)
    assert made.stats["rows_out"] == 5
    assert blobs.num_reads == 1


def test_the_sound_of_a_video_is_not_decoded_where_the_sample_has_its_own(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    data = video("mov", "mpeg4", sound="pcm_s16le")
    # A codec that nobody knows.
    strange = data.replace(b"sowt", b"zzzz")
    assert strange != data
    rows = [
        {"id": "own", "video": "film.mov", "audio": "own.wav"}, {"id": "track", "video": "film.mov"},
    ]  # fmt: skip
    files = {"index.jsonl": jsonl(*rows), "film.mov": strange, "own.wav": sound(seconds=0.5)}
    deliver(store, make_folder(tmp_path / "drop", files))
    shard = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings)
    made = features_of(store, shard, tmp_path / "features")
    signals = rows_of(store, made, "signals.parquet", tmp_path)
    assert (signals["own"]["audio_origin"], signals["own"]["video_has_sound"]) == ("file", True)
    assert rows_of(store, made, "dead_letters.parquet", tmp_path)["track"]["reason"] == "unsupported_format"
