"""Policies: files of the store, their forms, and what one would do to a frozen release."""

import time

import pytest

from mm_assets.errors import SpecError, UsageError
from mm_assets.release.curation import check_policy
from mm_assets.release.policies import parse_policy
from mm_assets.release.rows import POLICY_SCHEMA
from mm_assets.release.trial import try_policy
from mm_assets.releases.policies import add_policy, list_policies, packaged_policies, pin_policy
from mm_assets.store.objects import Store

LOUD = b"schema: mm.policy/1\nname: loud\nexclude:\n  clipped: clipping_fraction > 0.1\n  mute: NOT has_audio\n"


def add(store: Store, data: bytes, file: str = "loud.yaml"):
    return add_policy(store, parse_policy(data, file).name, file, data, by="ada")


def test_a_policy_is_added_once_per_version_and_pinned_by_digest(store):
    first = add(store, LOUD)
    assert add(store, LOUD) == first
    second = add(store, LOUD + b"# stricter soon\n")
    assert [(entry.version, entry.previous) for entry in list_policies(store)] == [(1, None), (2, first.digest)]
    assert pin_policy(store, "loud")["digest"] == second.digest
    assert pin_policy(store, "loud@1") == {
        "name": "loud", "version": "1", "file": "loud.yaml", "digest": first.digest,
    }  # fmt: skip
    assert store.get_bytes(first.digest) == LOUD


def test_a_policy_that_does_not_exist_is_named(store):
    add(store, LOUD)
    with pytest.raises(UsageError, match="policy lout: is unknown: expected one of clean, default, everything, loud"):
        pin_policy(store, "lout")
    with pytest.raises(UsageError, match="policy loud@7: has no such version: expected one of 1"):
        pin_policy(store, "loud@7")
    with pytest.raises(UsageError, match="policy clean: is packaged"):
        add(store, LOUD.replace(b"loud", b"clean"), "clean.yaml")


@pytest.mark.parametrize(
    ("data", "file", "message"),
    [
        (b"", "p.yaml", "p.yaml: is not a policy"),
        (b"[1", "p.yaml", "p.yaml: line 1: is not valid YAML"),
        (LOUD.replace(b"mm.policy/1", b"mm.policy/2"), "p.yaml", "line 1: schema is unusable: expected mm.policy/1"),
        (LOUD.replace(b"loud", b"Loud!"), "p.yaml", "line 2: name is unusable"),
        (LOUD.replace(b"mute", b"'a,b'"), "p.yaml", "line 5: reason 'a,b' is unusable"),
        (LOUD.replace(b"NOT has_audio", b"7"), "p.yaml", "line 5: reason mute: is unusable: expected an expression"),
        (LOUD + b"keep: TRUE\n", "p.yaml", "line 6: keep is unknown"),
        (b"schema: mm.policy/1\nname: x\n", "p.yaml", "exclude is unusable"),
        (b"  \n", "p.sql", "p.sql: is empty"),
        (b"TRUE", "P 1.sql", "P 1.sql: is not named like a policy"),
        (b"\xff", "p.sql", "p.sql: is not UTF-8: byte 0"),
    ],
)
def test_an_unusable_file_is_one_sentence_with_its_line(data, file, message):
    with pytest.raises(SpecError) as caught:
        parse_policy(data, file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_expression_is_named_by_its_reason():
    with pytest.raises(SpecError, match="policy loud: mute: column has_audo is unknown: expected has_audio"):
        check_policy(parse_policy(LOUD.replace(b"has_audio", b"has_audo"), "loud.yaml"))


@pytest.mark.parametrize("name", sorted(packaged_policies()))
def test_packaged_policies_are_usable_and_named_like_their_files(name):
    policy = parse_policy(packaged_policies()[name], f"{name}.yaml")
    check_policy(policy)
    assert policy.name == name


def test_each_reason_is_recorded_and_the_card_shows_its_expression(world, sample):
    add(world.store, LOUD)
    rows = [sample("a", clipping_fraction=0.5), sample("b", audio=None), sample("c"), sample("d", clipping_fraction=0)]
    committed = world.release(rows, policy=pin_policy(world.store, "loud"))
    frozen = world.rows(committed)
    assert {key: row["reasons"] for key, row in frozen.items()} == {
        "a": "policy:loud:clipped", "b": "policy:loud:mute", "c": "", "d": "",
    }  # fmt: skip
    card = world.store.get_bytes(committed.manifest.output("README.md").digest).decode()
    assert "| policy:loud:mute | `NOT has_audio` |" in card
    record = world.document(committed, "record.json")
    assert record["exclusion_rules"]["policy"] == {
        "name": "loud", "exclude": {"clipped": "clipping_fraction > 0.1", "mute": "NOT has_audio"},
    }  # fmt: skip


def test_a_comment_in_the_file_changes_no_content(world, sample):
    rows = [sample("a", clipping_fraction=0.5), sample("b")]
    add(world.store, LOUD)
    first = world.release(rows, policy=pin_policy(world.store, "loud"))
    add(world.store, b"# a remark\n" + LOUD)
    second = world.freeze(world.spec("r1", 2, policy=pin_policy(world.store, "loud")))
    assert first.manifest.fingerprint == second.manifest.fingerprint


def test_a_trial_counts_what_the_freeze_then_does(world, sample, tmp_path):
    rows = [
        sample(
            f"k{number:02d}",
            source=("zoo", "web")[number % 2],
            language=("en", "de", "fr")[number % 3],
            image_width=4 if number in (1, 2, 3) else 64,
            **({"audio": None, "audio_seconds": None} if number % 4 == 0 else {"clipping_fraction": number / 40}),
        )
        for number in range(40)
    ]
    committed = world.release(rows)
    policy = parse_policy(LOUD, "loud.yaml")
    found = try_policy(world.store, committed.manifest, policy, tmp_path)
    add(world.store, LOUD)
    frozen = world.rows(world.freeze(world.spec("r1", 2, policy=pin_policy(world.store, "loud"))))
    out = {key: row for key, row in frozen.items() if "policy:" in row["reasons"]}
    assert (found["rows"], found["out"], found["in"]) == (40, len(out), 40 - len(out))
    assert found["reasons"] == {
        reason: sum(reason in row["reasons"].split(",") for row in frozen.values())
        for reason in ("policy:loud:clipped", "policy:loud:mute")
    }
    for name in ("language", "source", "label"):
        for value, counts in found["slices"][name].items():
            of_value = [key for key, row in frozen.items() if row[name] == value]
            assert counts["out"] == sum(key in out for key in of_value), (name, value)
            assert counts["in"] == len(of_value) - counts["out"]
    assert found["slices"]["modalities"]["text+image"] == {"in": 0, "out": 10, "let_in": 0, "left_out": 10}
    before = {key for key, row in world.rows(committed).items() if "policy:" in row["reasons"]}
    assert found["difference"]["let_in"]["num_samples"] == len(before - set(out)) > 0
    assert found["difference"]["left_out"]["num_samples"] == len(set(out) - before) > 0
    assert found["selected"] == {"before": committed.manifest.stats["rows_out"], "after": 40 - len(out)}


def test_a_trial_reads_embedding_signals_by_id(world, sample, tmp_path):
    rows = [sample(f"k{number}", coherence=number / 10) for number in range(10)]
    committed = world.release(rows, num_shards=3)
    found = try_policy(world.store, committed.manifest, parse_policy(b"coherence >= 0.35", "near.sql"), tmp_path)
    assert (found["in"], found["out"]) == (6, 4)
    assert found["difference"]["left_out"]["examples"] == [f"zoo/d1/k{number}" for number in range(4)]


@pytest.mark.slow
def test_a_trial_on_a_million_samples_takes_seconds(world, tmp_path):
    from mm_assets_tests.release.conftest import freeze_columns

    committed = freeze_columns(world, num_samples=1_000_000, num_shards=100)
    started = time.monotonic()
    found = try_policy(world.store, committed.manifest, parse_policy(packaged_policies()["clean"], "c.yaml"), tmp_path)
    assert found["rows"] == 1_000_000
    assert time.monotonic() - started < 10


def test_a_trial_knows_every_column_that_the_freeze_does(world, sample, tmp_path):
    rows = [
        sample("a", label_confidence=0.2, label_guideline="g1", label_cohort="crowd", label_adjudication="vote"),
        sample("b", label_confidence=0.9, label_guideline="g2", label_cohort="staff"),
        sample("c"),
    ]
    committed = world.release(rows)
    every = " AND ".join(f"""("{name}" IS NULL OR "{name}" IS NOT NULL)""" for name in POLICY_SCHEMA.names).encode()
    assert try_policy(world.store, committed.manifest, parse_policy(every, "every.sql"), tmp_path)["out"] == 0
    sure = (
        b"label_confidence > 0.5 AND label_cohort = 'staff' AND label_guideline = 'g2' AND label_adjudication IS NULL"
    )
    found = try_policy(world.store, committed.manifest, parse_policy(sure, "sure.sql"), tmp_path)
    assert (found["in"], found["difference"]["left_out"]["examples"]) == (2, ["zoo/d1/a"])


@pytest.mark.parametrize("terms", [250, 400, 1500])
def test_an_expression_that_is_nested_too_deep_is_one_sentence(terms):
    sql = " + ".join(["image_width"] * terms) + " > 3"
    with pytest.raises(SpecError, match="policy deep: is (nested too deep|not an expression): ") as caught:
        check_policy(parse_policy(sql.encode(), "deep.sql"))
    assert "\n" not in str(caught.value)


def test_long_expressions_that_are_flat_are_usable():
    check_policy(parse_policy((" AND ".join(["image_width > 3"] * 300)).encode(), "flat.sql"))
    check_policy(parse_policy((" + ".join(["image_width"] * 150) + " > 3").encode(), "sum.sql"))
