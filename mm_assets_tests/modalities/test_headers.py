import logging
from dataclasses import replace
from typing import Any

import pytest

from mm_assets.drops.blobs import inspect_blob
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.modalities.reasons import Refusal
from mm_assets_tests.drops.raw_data import png


@pytest.mark.parametrize("data", [b"fLaC" + bytes(60), b"OggS" + bytes(60), b"ID3" + bytes(60)])
def test_what_is_said_of_a_corrupt_clip_holds_no_address_of_memory(data: bytes) -> None:
    refusal = inspect_blob("audio", data, SnapshotConfig())
    assert isinstance(refusal, Refusal)
    assert "0x" not in refusal.detail
    assert "object" not in refusal.detail
    assert refusal == inspect_blob("audio", data, SnapshotConfig())


def test_a_fault_of_a_reader_is_a_dead_letter_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    nonsense: Any = "many"
    with caplog.at_level(logging.ERROR):
        refusal = inspect_blob("image", png(), replace(SnapshotConfig(), max_image_pixels=nonsense))
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.detail) == (
        "unexpected_error", "TypeError while it was read; the log has the traceback",
    )  # fmt: skip
    assert "Traceback" in caplog.text
