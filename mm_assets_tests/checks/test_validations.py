import json

import pytest

from mm_assets.checks.validations import (
    MAX_FAILING_IDS,
    Finding,
    Subject,
    passed_in_first_version,
    read_validation,
    record_validation,
)
from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.store.manifest import Manifest, Partition, content_digest
from mm_assets.store.objects import Store

CONTENT, INPUTS, RULES, OTHER = (digest_bytes(name) for name in (b"content", b"inputs", b"rules", b"other"))
SUBJECT = Subject(asset="snapshot", content=CONTENT, inputs=INPUTS, rules=RULES)
GOOD = Finding(rule="rows", passed=True, detail="fine")
BAD = Finding(rule="rows", passed=False, detail="3 rows have no id.", num_failing=3, failing_ids=("a", "b", "c"))


def test_an_outcome_is_read_back_by_its_subject(store: Store) -> None:
    record = record_validation(store, SUBJECT, [GOOD])
    assert record.passed
    assert record.subject == SUBJECT
    assert read_validation(store, SUBJECT) == record


def test_what_was_never_checked_has_no_outcome(store: Store) -> None:
    assert read_validation(store, SUBJECT) is None


@pytest.mark.parametrize(
    "other",
    [
        Subject(asset="features", content=CONTENT, inputs=INPUTS, rules=RULES),
        Subject(asset="snapshot", content=OTHER, inputs=INPUTS, rules=RULES),
        Subject(asset="snapshot", content=CONTENT, inputs=OTHER, rules=RULES),
        Subject(asset="snapshot", content=CONTENT, inputs=None, rules=RULES),
        Subject(asset="snapshot", content=CONTENT, inputs=INPUTS, rules=OTHER),
    ],
    ids=["asset", "content", "inputs", "no inputs", "rules"],
)
def test_an_outcome_about_something_else_does_not_count(store: Store, other: Subject) -> None:
    record_validation(store, SUBJECT, [GOOD])
    assert read_validation(store, other) is None
    # A copy of the record under the other subject's key does not count either.
    data = store.read_key(SUBJECT.key)
    assert data is not None
    store.create_key(other.key, data.data)
    with pytest.raises(ObjectCorruptError, match="is the outcome of another check, or contradicts itself"):
        read_validation(store, other)


def test_one_failed_finding_fails_the_check_and_is_named(store: Store) -> None:
    record_validation(store, SUBJECT, [GOOD, BAD])
    record = read_validation(store, SUBJECT)
    assert record is not None
    assert (record.passed, record.failures) == (False, "3 rows have no id")


def test_a_check_that_found_nothing_is_no_outcome(store: Store) -> None:
    with pytest.raises(ValueError, match="snapshot: its check returned no findings"):
        record_validation(store, SUBJECT, [])
    assert read_validation(store, SUBJECT) is None


def test_the_latest_outcome_counts(store: Store) -> None:
    for findings, passed in (([BAD], False), ([GOOD], True), ([GOOD, BAD], False)):
        record_validation(store, SUBJECT, findings)
        record = read_validation(store, SUBJECT)
        assert record is not None
        assert record.passed is passed


def test_a_record_names_a_bounded_number_of_failing_ids(store: Store) -> None:
    many = Finding(rule="r", passed=False, detail="d", num_failing=99, failing_ids=tuple(map(str, range(99))))
    record_validation(store, SUBJECT, [many])
    record = read_validation(store, SUBJECT)
    assert record is not None
    failing = record.findings[0]["failing_ids"]
    assert isinstance(failing, list)
    assert (record.findings[0]["num_failing"], len(failing)) == (99, MAX_FAILING_IDS)


@pytest.mark.parametrize("data", [b'{"passed": true}', b"not json", b"", b"[]"])
def test_a_record_that_is_something_else_is_corrupt(store: Store, data: bytes) -> None:
    store.create_key(SUBJECT.key, data)
    with pytest.raises(ObjectCorruptError, match=f"{SUBJECT.key}: is not the outcome of a check"):
        read_validation(store, SUBJECT)


@pytest.mark.parametrize("change", ["passed", "finding"])
def test_a_forged_pass_contradicts_its_findings(store: Store, change: str) -> None:
    record_validation(store, SUBJECT, [GOOD, BAD] if change == "passed" else [GOOD])
    current = store.read_key(SUBJECT.key)
    assert current is not None
    document = json.loads(current.data)
    if change == "passed":
        document["passed"] = True
    else:
        document["findings"][0]["passed"] = False
    assert store.replace_key(SUBJECT.key, json.dumps(document).encode(), current.etag)
    with pytest.raises(ObjectCorruptError, match="contradicts itself"):
        read_validation(store, SUBJECT)


def test_a_forged_pass_without_any_finding_does_not_count(store: Store) -> None:
    record_validation(store, SUBJECT, [BAD])
    current = store.read_key(SUBJECT.key)
    assert current is not None
    document = json.loads(current.data) | {"passed": True, "findings": []}
    assert store.replace_key(SUBJECT.key, json.dumps(document).encode(), current.etag)
    with pytest.raises(ObjectCorruptError):
        read_validation(store, SUBJECT)


def test_a_pass_of_the_first_version_counts_for_exactly_its_own_manifest(store: Store) -> None:
    manifest = Manifest(
        schema="mm.manifest/1", asset="snapshot", partition=Partition(release="r1", shard="0000"), fingerprint=OTHER,
        content=content_digest([]), code=OTHER, params={}, environment={}, inputs=[], outputs=[], stats={},
    )  # fmt: skip
    assert not passed_in_first_version(store, manifest, CONTENT)
    record = {"schema": "mm.validation/1", "manifest": CONTENT, "passed": True}
    store.create_key("refs/validations/snapshot/r1/0000.json", json.dumps(record).encode())
    assert passed_in_first_version(store, manifest, CONTENT)
    assert not passed_in_first_version(store, manifest, OTHER)
    failed = record | {"passed": False}
    store.create_key("refs/validations/snapshot/r2/0000.json", json.dumps(failed).encode())
    other = manifest.model_copy(update={"partition": Partition(release="r2", shard="0000")})
    assert not passed_in_first_version(store, other, CONTENT)
