"""How a sample with several parts has one value per signal."""

import pytest

from mm_assets.identity.canonical import digest_json
from mm_assets.modalities.combine import RULES, combine
from mm_assets.modalities.table import NAMES, aspect


@pytest.mark.parametrize("modality", NAMES)
def test_a_modality_says_it_for_columns_that_it_has(modality: str) -> None:
    signals = aspect(modality, "signals")
    stated = getattr(signals, "COMBINED", {})
    assert set(stated) <= {name for name, _ in signals.COLUMNS}
    assert set(stated.values()) <= set(RULES)


def test_a_single_part_keeps_its_values() -> None:
    columns = {name: name for name, _ in aspect("image", "signals").COLUMNS}
    assert combine("image", [(3, columns)]) == columns


def test_several_texts_are_summed_flagged_and_told_apart_by_their_places() -> None:
    names = [name for name, _ in aspect("text", "signals").COLUMNS]
    one = dict.fromkeys(names) | {"text_chars": 3, "has_email": False, "text_digest": "a", "text_signature": b"xy"}
    two = dict.fromkeys(names) | {
        "text_chars": 4, "has_email": True, "text_digest": "b", "text_signature": b"zz", "language_id": "de",
        "text_repetition": 0.5,
    }  # fmt: skip
    made = combine("text", [(0, one), (2, two)])
    assert (made["text_chars"], made["has_email"], made["language_id"], made["text_repetition"]) == (7, True, "de", 0.5)
    assert made["text_signature"] == b"xyzz"
    assert made["text_digest"] == digest_json([[0, "a"], [2, "b"]])
    assert made["text_digest"] != combine("text", [(0, one), (1, two)])["text_digest"]
    assert made["language_confidence"] is None
