import pytest

from mm_assets.drops.blobs import inspect_blob
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.modalities.reasons import Refusal


@pytest.mark.parametrize("data", [b"fLaC" + bytes(60), b"OggS" + bytes(60), b"ID3" + bytes(60)])
def test_what_is_said_of_a_corrupt_clip_holds_no_address_of_memory(data: bytes) -> None:
    refusal = inspect_blob("audio", data, SnapshotConfig())
    assert isinstance(refusal, Refusal)
    assert "0x" not in refusal.detail
    assert "object" not in refusal.detail
    assert refusal == inspect_blob("audio", data, SnapshotConfig())
