"""The freeze as a whole: what is selected, why the rest is not, and that nothing else decides it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_assets.errors import SpecError, StageError
from mm_assets.features.schema import SIGNALS
from mm_assets.release.config import FreezeConfig
from mm_assets.release.freeze import SAMPLES
from mm_assets.release.rows import load_rows, read_columns
from mm_assets.release.shards import Shard
from mm_assets.releases.policies import packaged_policies, pin_policy
from mm_assets.store.tables import write_parquet
from mm_assets_tests.release.drawings import picture


def animals(sample: Any, count: int, **values: Any) -> list[dict[str, Any]]:
    return [sample(f"k{i:03d}", label=("cat", "dog", "owl")[i % 3], **values) for i in range(count)]


def test_release_has_every_row_sorted_by_id_with_its_place(world, sample):
    committed = world.release(animals(sample, 30), num_shards=3)
    table = pq.read_table(world.store.fetch(committed.manifest.output("samples.parquet").digest, world.folder))
    assert table.schema.names == SAMPLES.names
    ids = table["id"].to_pylist()
    assert ids == sorted(ids)
    assert len(ids) == 30
    row = world.rows(committed)["k004"]
    assert (row["shard"], row["row"]) == (1, 1)
    assert committed.manifest.stats["rows_in"] == committed.manifest.stats["rows_out"] == 30
    assert committed.manifest.stats["num_classes"] == 3


def test_all_findings_of_a_sound_release_pass(world, sample):
    findings = world.findings(world.release(animals(sample, 30)).manifest)
    assert [finding.rule for finding in findings.values() if not finding.passed] == []
    assert set(findings) == {
        "merkle_root", "rows_exist", "unique_ids", "no_leakage", "no_near_leakage", "contamination", "splits_filled",
        "classes_in_train", "largest_group", "drift",
    }  # fmt: skip


def test_same_rows_in_another_order_of_commits_give_the_same_release(world, sample):
    rows = animals(sample, 20)
    for shard, part in (("0001", rows[1::2]), ("0000", rows[0::2])):
        world.shard("r1", shard, part)
    first = world.freeze(world.spec("r1", 2))
    world.shard("r1", "0000", rows[0::2])
    again = world.release(rows)
    assert first.manifest_digest == again.manifest_digest


def test_release_without_any_row_can_be_frozen_and_checked(world):
    committed = world.release([], num_shards=1)
    assert committed.manifest.stats["rows_in"] == 0
    assert all(finding.passed for finding in world.findings(committed.manifest).values())


def test_release_without_labels_keeps_its_samples(world, sample):
    committed = world.release([sample(f"k{i}", label=None) for i in range(12)])
    assert committed.manifest.stats["rows_out"] == 12
    assert committed.manifest.stats["num_classes"] == 0
    assert all(finding.passed for finding in world.findings(committed.manifest).values())


def test_required_labels_exclude_unlabelled_samples_with_a_reason(world, sample):
    world.config = FreezeConfig(labels="required")
    rows = world.rows(world.release([sample("a", label=None), sample("b")]))
    assert (rows["a"]["selected"], rows["a"]["reasons"]) == (False, "unlabelled")
    assert (rows["b"]["selected"], rows["b"]["reasons"]) == (True, "")


def test_thousands_of_labels_are_all_in_train_where_they_have_two_groups(world, sample):
    rows = [sample(f"k{i:05d}", label=f"label {i // 2}") for i in range(4000)]
    committed = world.release(rows)
    findings = world.findings(committed.manifest)
    assert findings["classes_in_train"].passed
    assert committed.manifest.stats["num_classes"] == 2000
    assert all(committed.manifest.stats["splits"].values())


def test_one_picture_with_four_languages_of_text_is_four_samples(world, sample):
    rows = [
        sample(f"cat.{code}", image="one", text=f"cat {code}", language=code, group="cat")
        for code in ("de", "en", "es", "fr")
    ]
    frozen = world.rows(world.release(rows))
    assert all(row["selected"] for row in frozen.values())
    assert len({row["split"] for row in frozen.values()}) == 1


def test_duplicate_of_all_modalities_names_its_original(world, sample):
    twins = {"text": "t", "image": "i", "audio": "a"}
    frozen = world.rows(world.release([sample("b", **twins), sample("a", **twins), sample("c")]))
    assert frozen["a"]["selected"]
    assert (frozen["b"]["reasons"], frozen["b"]["duplicate_of"]) == ("duplicate", "zoo/d1/a")
    assert frozen["a"]["split"] == frozen["b"]["split"]
    assert frozen["c"]["selected"]


def test_a_missing_modality_is_a_difference(world, sample):
    frozen = world.rows(
        world.release([sample("a", text="t", image="i", audio="s"), sample("b", text="t", image="i", audio=None)])
    )
    assert all(row["selected"] for row in frozen.values())


def test_excluding_an_original_lets_its_copy_take_its_place(world, sample):
    twins = {"text": "t", "image": "i", "audio": None}
    committed = world.release([sample("a", **twins), sample("b", **twins)], exclusions=["zoo/d1/a", "zoo/none/*"])
    frozen = world.rows(committed)
    assert frozen["a"]["reasons"] == "excluded"
    assert frozen["b"]["selected"]
    assert world.document(committed, "record.json")["exclusion_rules"]["unused_exclusions"] == ["zoo/none/*"]


def test_near_duplicate_is_left_out_only_with_equal_text_and_sound(world, sample):
    rows = [
        sample("a", text="t", audio=None, image_signature=picture(1)),
        sample("b", text="t", audio=None, image_signature=picture(1, shade=3)),
        sample("c", text="other", audio=None, image_signature=picture(1, shade=2)),
    ]
    frozen = world.rows(world.release(rows))
    assert (frozen["b"]["reasons"], frozen["b"]["duplicate_of"]) == ("near_duplicate", "zoo/d1/a")
    assert frozen["c"]["selected"]
    assert len({row["split"] for row in frozen.values()}) == 1


def test_equal_pictures_under_different_names_share_a_split(world, sample):
    rows = [sample(f"k{i:03d}", image=f"picture {i // 2}", label=f"l{i % 5}") for i in range(80)]
    frozen = world.rows(world.release(rows))
    assert all(row["selected"] for row in frozen.values())
    for i in range(0, 80, 2):
        assert frozen[f"k{i:03d}"]["split"] == frozen[f"k{i + 1:03d}"]["split"]


def test_id_in_two_shards_is_selected_once(world, sample):
    world.shard("r1", "0000", [sample("a", text="x")])
    world.shard("r1", "0001", [sample("a", text="y"), sample("b")])
    committed = world.freeze(world.spec("r1", 2))
    path = world.store.fetch(committed.manifest.output("samples.parquet").digest, world.folder)
    rows = [(r["shard"], r["selected"], r["reasons"]) for r in pq.read_table(path).to_pylist() if r["id"] == "zoo/d1/a"]
    assert rows == [(0, True, ""), (1, False, "duplicate_id")]
    assert world.findings(committed.manifest)["unique_ids"].passed


def test_policy_excludes_where_false_and_keeps_where_unknown(world, sample):
    rows = [
        sample("small", image_width=2),
        sample("large"),
        sample("none", image=None, image_width=None, image_height=None),
    ]
    frozen = world.rows(world.release(rows))
    assert frozen["small"]["reasons"] == "policy:default:picture_too_small"
    assert frozen["large"]["selected"]
    assert frozen["none"]["selected"]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("sharpnes > 0.1", "column sharpnes is unknown: expected sharpness"),
        ("image_width >", "syntax error"),
        ("random() > 0.5", "random does not always give the same answer"),
        ("current_date > DATE '2020-01-01'", "column current_date is unknown"),
        ("now() IS NULL", "now does not always give the same answer"),
        ("image_width = (SELECT max(image_width) FROM samples)", "looks beyond one sample"),
        ("sum(image_width) > 3", "sum looks beyond one sample"),
        ("row_number() OVER () < 5", "looks beyond one sample"),
        ("TRUE; DROP TABLE samples", "syntax error"),
        ("TRUE) FROM read_csv('/etc/passwd') AS t(x) WHERE (TRUE", "looks beyond one sample"),
        ("TRUE), (FALSE", "looks beyond one sample"),
        ("EXISTS (FROM samples)", "looks beyond one sample"),
        ("1 > 2) OR (1 > 0", "its parentheses do not match"),
        ("version() <> ''", "version does not always give the same answer"),
        ("getenv('HOME') = ''", "function getenv is unknown"),
        ("current_setting('threads') = '1'", "current_setting does not always give the same answer"),
        ("len(read_text('/etc/passwd')) > 0", "read_text looks beyond one sample"),
        ("COLUMNS('.*') IS NULL", "looks beyond one sample"),
        ("age(TIMESTAMP '2020-01-01') > INTERVAL 1 DAY", "age does not always give the same answer"),
        ("image_width = ?", "looks beyond one sample"),
        ("image_width", "is not a yes-or-no expression: expected BOOLEAN, got INTEGER"),
        ("language || 'x'", "is not a yes-or-no expression: expected BOOLEAN, got VARCHAR"),
        ("CAST(language AS INTEGER) > 3", "Could not convert string"),
    ],
)
def test_unusable_policy_is_one_clear_error(world, sample, sql, named):
    with pytest.raises(SpecError) as caught:
        world.release([sample("a")], policy={"name": "mine", "sql": sql})
    assert str(caught.value).startswith("policy mine: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(packaged_policies()))
def test_packaged_policy_keeps_a_plain_sample(world, sample, name):
    frozen = world.rows(world.release([sample("a")], policy=pin_policy(world.store, name)))
    assert frozen["a"]["selected"]


def test_words_in_a_text_literal_are_no_subquery(world, sample):
    frozen = world.rows(world.release([sample("a")], policy={"name": "p", "sql": "label <> 'select over (from now()'"}))
    assert frozen["a"]["selected"]


def test_statistics_count_selected_samples_per_split(world, sample):
    committed = world.release([*animals(sample, 40), sample("x", image_width=1)])
    statistics = world.document(committed, "stats.json")
    assert statistics["num_selected"] == 40
    assert statistics["reasons"] == {"policy:default:picture_too_small": 1}
    assert sum(split["num_samples"] for split in statistics["splits"].values()) == 40
    assert sum(split["labels"].get("cat", 0) for split in statistics["splits"].values()) == statistics["labels"]["cat"]
    assert statistics["modalities"] == {"text+image+audio": 40}
    assert statistics["drift"] is None


def test_conflicting_labels_of_duplicates_are_counted(world, sample):
    twins = {"text": "t", "image": "i", "audio": "a"}
    committed = world.release([sample("a", label="cat", **twins), sample("b", label="dog", **twins)])
    assert world.document(committed, "stats.json")["conflicting_labels"] == 1


#: What DESIGN asks of the release record, and where it is.
RECORDED = {
    "source systems": ("sources", 0, "source_system"),
    "capture range": ("captured_from",),
    "capture range, its end": ("captured_to",),
    "coverage": ("coverage", "modalities"),
    "language mix": ("languages", "en"),
    "sampling-rate policy": ("sampling_rate", "target_hz", 0),
    "resolution policy": ("resolution", "target_pixels", 0),
    "preprocessing versions": ("preprocessing", 0, "params.image_size"),
    "label-schema versions": ("label_schemas", 0, "label_schema_version"),
    "exclusion rules, policy": ("exclusion_rules", "policy", "name"),
    "exclusion rules, ids": ("exclusion_rules", "exclusions", 0),
    "redaction, applied": ("redaction", "applied", 0),
    "redaction, seen": ("redaction", "flagged"),
    "checksum summary": ("checksums", "merkle_root"),
    "checksum summary, samples": ("checksums", "samples"),
}


def test_the_record_has_a_value_for_every_field_that_is_asked_of_it(world, sample):
    made = world.shard("r1", "0000", [sample("a"), sample("b")], redactions="email@1")
    assert made
    record = world.document(world.freeze(world.spec("r1", 1, exclusions=["zoo/d1/b"])), "record.json")
    for field, place in RECORDED.items():
        value = record
        for step in place:
            value = value[step]
        assert value not in (None, "", [], {}), field


def test_unknown_members_of_a_line_are_added_up_in_the_record(world, sample):
    world.shard("r1", "0000", [sample("a")], unknown={"gif": 2, "seg.npy": 1})
    world.shard("r1", "0001", [sample("b")], unknown={"gif": 3})
    parent = world.freeze(world.spec("r1", 2))
    assert world.document(parent, "record.json")["coverage"]["unknown_members"] == {"gif": 5, "seg.npy": 1}
    world.shard("r2", "0000", [sample("c", drop="d2")], unknown={"m4a": 4, "gif": 1})
    child = world.freeze(world.spec("r2", 1, parent=parent))
    assert world.document(child, "record.json")["coverage"]["unknown_members"] == {"gif": 6, "m4a": 4, "seg.npy": 1}


def test_record_answers_the_auditor(world, sample):
    committed = world.release(animals(sample, 12))
    record = world.document(committed, "record.json")
    assert record["sources"][0]["owner"] == "Ada"
    assert (record["captured_from"], record["captured_to"]) == (
        "2026-01-01T00:00:00+00:00",
        "2026-02-01T00:00:00+00:00",
    )
    assert record["languages"] == {"en": 12}
    assert record["sampling_rate"]["target_hz"] == [16000]
    assert record["resolution"] == {"target_pixels": [64], "observed_pixels": [64, 64, 64, 64]}
    [schema] = record["label_schemas"]
    assert schema == {"source": "zoo", "digest": record["sources"][0]["digest"], "label_schema_version": "3"}
    assert record["checksums"]["merkle_root"] == world.document(committed, "shards.json")["merkle_root"]
    assert record["preprocessing"] == [{"params.image_size": "64", "params.sample_rate": "16000"}]


def test_nothing_about_the_store_is_in_the_outputs(world, sample):
    committed = world.release(animals(sample, 12))
    for output in committed.manifest.outputs:
        assert world.store.bucket.encode() not in world.store.get_bytes(output.digest)
    assert json.dumps(committed.manifest.stats)


def test_shard_whose_tables_do_not_belong_together_is_named(world, sample):
    made = world.shard("r1", "0001", [sample("b")])
    other = world.shard("r0", "0001", [sample("c")])
    shard = Shard(
        generation=0,
        samples=made["snapshot"].manifest.output("samples.parquet").digest,
        signals=other["features"].manifest.output("signals.parquet").digest,
        embedding_signals=made["embeddings"].manifest.output("signals.parquet").digest,
        tensors=made["features"].manifest.output("tensors.arrow").digest,
    )
    with pytest.raises(StageError, match="shard 0: its tables do not belong together: expected 1 samples"):
        load_rows(world.store, [shard], world.folder)


def test_a_table_from_before_a_modality_says_that_no_sample_has_it(tmp_path: Path) -> None:
    known = [field.with_nullable(True) for field in SIGNALS if "video" not in field.name]
    table = pa.table([pa.nulls(2, field.type) for field in known], schema=pa.schema(known))
    read = read_columns(write_parquet(table, tmp_path / "signals.parquet"), SIGNALS)
    assert read["has_video"].to_pylist() == [False, False]
    assert read["video_frames"].to_pylist() == [0, 0]
    assert read["video_seconds"].null_count == 2
