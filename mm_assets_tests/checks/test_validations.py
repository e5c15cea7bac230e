import pytest

from mm_assets.checks.validations import (
    MAX_FAILING_IDS,
    Finding,
    read_validation,
    record_validation,
    require_passed,
    validation_key,
)
from mm_assets.errors import GateError, ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.store.commit import materialize

RULES = digest_bytes(b"rules")
GOOD = Finding(rule="rows", passed=True, detail="fine")
BAD = Finding(rule="rows", passed=False, detail="3 rows have no id", num_failing=3, failing_ids=("a", "b", "c"))


def test_partition_that_passed_may_be_used(any_store, make_recipe, write_files):
    committed = materialize(any_store, make_recipe(), write_files(b"x"))
    record_validation(any_store, committed.ref, rules=RULES, findings=[GOOD])
    assert require_passed(any_store, "snapshot", committed.ref.partition) == committed.ref


def test_partition_that_was_never_checked_is_refused(any_store, make_recipe, write_files):
    committed = materialize(any_store, make_recipe(), write_files(b"x"))
    with pytest.raises(GateError, match=f"expected one of {committed.manifest_digest}, got none"):
        require_passed(any_store, "snapshot", committed.ref.partition)


def test_partition_that_does_not_exist_is_missing(any_store, make_recipe):
    with pytest.raises(ObjectMissingError, match="snapshot r1/0000"):
        require_passed(any_store, "snapshot", make_recipe().partition)


def test_failed_finding_refuses_with_its_detail(any_store, make_recipe, write_files):
    committed = materialize(any_store, make_recipe(), write_files(b"x"))
    record_validation(any_store, committed.ref, rules=RULES, findings=[GOOD, BAD])
    with pytest.raises(GateError, match="snapshot r1/0000: failed its checks: 3 rows have no id"):
        require_passed(any_store, "snapshot", committed.ref.partition)


def test_validation_of_another_manifest_does_not_count(any_store, make_recipe, write_files):
    first = materialize(any_store, make_recipe("a"), write_files(b"a"))
    record_validation(any_store, first.ref, rules=RULES, findings=[GOOD])
    second = materialize(any_store, make_recipe("b"), write_files(b"b"))
    with pytest.raises(GateError, match=f"expected one of {second.manifest_digest}, got {first.manifest_digest}"):
        require_passed(any_store, "snapshot", second.ref.partition)


def test_latest_validation_counts(any_store, make_recipe, write_files):
    committed = materialize(any_store, make_recipe(), write_files(b"x"))
    record_validation(any_store, committed.ref, rules=RULES, findings=[BAD])
    record_validation(any_store, committed.ref, rules=RULES, findings=[GOOD])
    assert require_passed(any_store, "snapshot", committed.ref.partition) == committed.ref


def test_record_names_a_bounded_number_of_failing_ids(store, make_recipe, write_files):
    committed = materialize(store, make_recipe(), write_files(b"x"))
    many = Finding(rule="r", passed=False, detail="d", num_failing=99, failing_ids=tuple(map(str, range(99))))
    record_validation(store, committed.ref, rules=RULES, findings=[many])
    finding = read_validation(store, "snapshot", committed.ref.partition).findings[0]
    assert (finding["num_failing"], len(finding["failing_ids"])) == (99, MAX_FAILING_IDS)


def test_record_that_is_something_else_is_corrupt(store, make_recipe):
    store.create_key(validation_key("snapshot", make_recipe().partition), b'{"passed": true}')
    with pytest.raises(ObjectCorruptError, match="refs/validations/snapshot/r1/0000.json: is not a validation record"):
        read_validation(store, "snapshot", make_recipe().partition)
