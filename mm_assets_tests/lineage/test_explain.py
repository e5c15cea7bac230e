import pytest

from mm_assets.errors import UsageError
from mm_assets.lineage.explain import explain_sample


def test_selected_sample_has_no_reasons_and_all_its_signals(history):
    explained = explain_sample(history.store, "r1", "a")
    assert explained["selected"] is True
    assert explained["reasons"] == []
    assert explained["signals"] == {"sharpness": 0.5, "coherence": 0.25}
    assert explained["shard"] == "r1/0000"
    assert explained["codecs"] == {"libsndfile": "1.2.2"}


def test_sample_that_was_left_out_has_its_reasons_and_its_original(history):
    explained = explain_sample(history.store, "r1", "zoo/d1/c")
    assert explained["selected"] is False
    assert explained["reasons"] == ["duplicate", "policy:mine"]
    assert explained["duplicate_of"] == "zoo/d1/a"
    assert explained["signals"]["coherence"] == 0.25


def test_dead_letter_is_explained_by_its_reason(history):
    explained = explain_sample(history.store, "r1", "broken")
    assert (explained["selected"], explained["reasons"], explained["signals"]) == (False, ["truncated"], {})
    assert explained["dead_letter"]["detail"] == "42 bytes are missing"


def test_unknown_sample_and_release_are_usage_errors(history):
    with pytest.raises(UsageError, match="sample nobody: is unknown"):
        explain_sample(history.store, "r1", "nobody")
    with pytest.raises(UsageError, match="release r9: is not open"):
        explain_sample(history.store, "r9", "a")


def test_sample_of_a_release_that_is_not_frozen_says_so(empty_history):
    broken = {"id": "zoo/d1/bad", "object": "o", "stage": "snapshot", "reason": "text_not_utf8", "detail": "byte 3"}
    empty_history.shard("0000", ["a"], [broken])
    explained = explain_sample(empty_history.store, "r1", "a")
    assert (explained["selected"], explained["reasons"]) == (False, ["not_frozen"])
    assert explained["signals"]["sharpness"] == 0.5
    assert explain_sample(empty_history.store, "r1", "bad")["reasons"] == ["text_not_utf8"]
