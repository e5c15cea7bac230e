"""The rules in force: pinned by digest, replaced on record only, never read from whoever runs something."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from mm_assets.checks.rules import (
    MAX_REASON_CHARS,
    Rules,
    RulesRecord,
    find_rules_problems,
    read_rules_record,
    replace_rules,
    rules_entry_key,
    rules_in_force,
    rules_key,
)
from mm_assets.errors import CommitConflictError, ObjectCorruptError, ObjectMissingError, SettingsError, UsageError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.store.objects import Store, Versioned, object_key
from mm_assets_tests.store.committing import damage

PACKAGED = {"one.yaml": b"packaged one", "two.yaml": b"packaged two"}


def pin(store: Store, **files: bytes) -> dict[str, str]:
    return {f"{name}.yaml": store.put_bytes(data) for name, data in files.items()}


def change(
    store: Store, pinned: Mapping[str, str], files: Mapping[str, bytes], reason: str = "audit 7", release: str = "r1"
) -> RulesRecord:
    rules = Rules(digests=pinned, load=lambda name: store.get_bytes(pinned[name]))
    return replace_rules(store, release, rules, files, reason=reason, by="ada")


def test_pinned_rules_count_and_packaged_files_do_not(store: Store) -> None:
    pinned = pin(store, one=b"strict one", two=b"packaged two")
    rules = rules_in_force(store, "r1", pinned, PACKAGED)
    assert (rules.read("one.yaml"), rules.read("two.yaml")) == (b"strict one", b"packaged two")
    assert rules.digests == pinned


def test_a_release_that_pinned_none_is_judged_by_the_packaged_rules(store: Store) -> None:
    rules = rules_in_force(store, "r1", {}, PACKAGED)
    assert {name: rules.read(name) for name in PACKAGED} == PACKAGED


def test_a_replacement_is_on_record_and_in_force(store: Store) -> None:
    pinned = pin(store, one=b"1", two=b"2")
    assert read_rules_record(store, "r1") is None
    record = change(store, pinned, {"one.yaml": b"1 again"}, "  the label guide changed ")
    assert read_rules_record(store, "r1") == record
    assert (record.reason, record.by, record.changed) == ("the label guide changed", "ada", ["one.yaml"])
    assert record.previous is None
    rules = rules_in_force(store, "r1", pinned, PACKAGED)
    assert (rules.read("one.yaml"), rules.read("two.yaml")) == (b"1 again", b"2")
    assert rules_in_force(store, "r2", pinned, PACKAGED).read("one.yaml") == b"1", "another release keeps its own"


def test_each_replacement_builds_on_the_one_before_and_names_it(store: Store) -> None:
    pinned = pin(store, one=b"1", two=b"2")
    first = change(store, pinned, {"one.yaml": b"1b"})
    second = change(store, pinned, {"two.yaml": b"2b"}, "another reason")
    assert second.rules == first.rules | {"two.yaml": digest_bytes(b"2b")}
    assert second.previous is not None
    assert RulesRecord.model_validate(json.loads(store.get_bytes(second.previous))) == first


@pytest.mark.parametrize("reason", ["", "  \n ", "x" * (MAX_REASON_CHARS + 1)])
def test_a_replacement_needs_a_reason(store: Store, reason: str) -> None:
    with pytest.raises(UsageError, match="rules of r1: have no usable reason"):
        change(store, pin(store, one=b"1"), {"one.yaml": b"x"}, reason)
    assert read_rules_record(store, "r1") is None


def test_an_unknown_name_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match=r"rules three\.yaml: are unknown: expected one of one\.yaml, two\.yaml"):
        change(store, pin(store, one=b"1", two=b"2"), {"three.yaml": b"x"})
    assert read_rules_record(store, "r1") is None


@pytest.mark.parametrize("has_record", [False, True], ids=["first", "later"])
def test_of_two_replacements_at_the_same_moment_one_is_told(store: Store, has_record: bool) -> None:
    pinned = pin(store, one=b"1")
    if has_record:
        change(store, pinned, {"one.yaml": b"before"})

    class Late(Store):
        """A store whose reader is overtaken by another writer right after it looked."""

        def read_key(self, key: str) -> Versioned | None:
            found = super().read_key(key)
            if not overtaken:
                overtaken.append(key)
                change(store, pinned, {"one.yaml": b"theirs"}, "theirs")
            return found

    overtaken: list[str] = []
    late = Late(client=store.client, bucket=store.bucket, prefix=store.prefix)
    with pytest.raises(CommitConflictError, match="rules of r1: another command replaced them just now"):
        change(late, pinned, {"one.yaml": b"mine"})
    assert len(overtaken) == 1
    assert rules_in_force(store, "r1", pinned, PACKAGED).read("one.yaml") == b"theirs"


def test_rules_that_do_not_match_their_digest_are_refused(store: Store) -> None:
    pinned = pin(store, one=b"strict")
    rules = rules_in_force(store, "r1", pinned, PACKAGED)
    damage(store, object_key(pinned["one.yaml"]), b"weaker")
    with pytest.raises(ObjectCorruptError):
        rules.read("one.yaml")
    forged = replace(rules, load=lambda _: b"weaker")
    with pytest.raises(ObjectCorruptError, match=r"rules one\.yaml: do not match their digest sha256:"):
        forged.read("one.yaml")


def test_rules_that_are_gone_are_missing(store: Store) -> None:
    rules = rules_in_force(store, "r1", {"one.yaml": digest_bytes(b"nobody stored this")}, PACKAGED)
    with pytest.raises(ObjectMissingError):
        rules.read("one.yaml")


def test_a_file_that_is_not_pinned_is_a_settings_error(store: Store) -> None:
    with pytest.raises(SettingsError, match=r"rules two\.yaml: are not pinned: expected one of one\.yaml"):
        rules_in_force(store, "r1", pin(store, one=b"1"), PACKAGED).read("two.yaml")
    with pytest.raises(SettingsError, match="expected one of no file"):
        Rules(digests={}, load=lambda _: b"").read("one.yaml")


@pytest.mark.parametrize("data", [b"", b"{}", b"not json"])
def test_a_record_that_is_something_else_is_corrupt_and_nothing_else_counts(store: Store, data: bytes) -> None:
    store.create_key(rules_key("r1"), data)
    for act in (
        lambda: read_rules_record(store, "r1"),
        lambda: rules_in_force(store, "r1", {}, PACKAGED),
        lambda: change(store, {"one.yaml": digest_bytes(b"1")}, {"one.yaml": b"x"}),
    ):
        with pytest.raises(ObjectCorruptError, match=r"releases/r1/rules\.json: is not a record of rules"):
            act()


def test_rules_stay_replaced_when_the_key_or_the_latest_entry_is_deleted_or_put_back(store: Store) -> None:
    pinned = pin(store, one=b"1")
    change(store, pinned, {"one.yaml": b"strict"})
    old = store.read_key(rules_key("r1"))
    change(store, pinned, {"one.yaml": b"stricter"})
    new = store.read_key(rules_key("r1"))
    assert old is not None
    assert new is not None
    assert list(find_rules_problems(store, "r1")) == []

    def in_force() -> bytes:
        return rules_in_force(store, "r1", pinned, PACKAGED).read("one.yaml")

    for key, data in (
        (rules_key("r1"), None),
        (rules_key("r1"), old.data),
        (rules_entry_key("r1", 2), None),
        (rules_entry_key("r1", 1), None),
    ):
        if data is None:
            store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}")
        else:
            damage(store, key, data)
        assert in_force() == b"stricter"
        assert [wrong for wrong, _ in find_rules_problems(store, "r1")] == [key]
        damage(store, key, old.data if key == rules_entry_key("r1", 1) else new.data)
    assert list(find_rules_problems(store, "r1")) == []


def test_a_command_killed_between_entry_and_key_has_replaced_the_rules(store: Store) -> None:
    pinned = pin(store, one=b"1")
    change(store, pinned, {"one.yaml": b"strict"})
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{rules_key('r1')}")
    assert change(store, pinned, {"one.yaml": b"stricter"}).number == 2
    assert list(find_rules_problems(store, "r1")) == []


def test_a_record_of_another_release_is_refused(store: Store) -> None:
    pinned = pin(store, one=b"1")
    change(store, pinned, {"one.yaml": b"weak"}, release="r2")
    current = store.read_key(rules_key("r2"))
    assert current is not None
    store.create_key(rules_key("r1"), current.data)
    with pytest.raises(ObjectCorruptError, match="is about another release: expected r1, got r2"):
        rules_in_force(store, "r1", pinned, PACKAGED)
