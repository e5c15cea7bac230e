"""The ceilings a raw sample has to stay below. They are identity: another ceiling is another snapshot."""

from dataclasses import dataclass

from mm_assets.modalities.table import MODALITIES

MIB = 1 << 20
#: How deep the containers of a sample's description may be nested; readers of JSON give up at some hundreds.
MAX_METADATA_DEPTH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotConfig:
    """Section ``snapshot`` of a configuration.

    Sizes are of the encoded bytes, checked before anything is buffered; pixels, seconds and frames are what a file's
    own header declares, checked before anything is decoded. ``max_metadata_bytes`` bounds a sample's further columns
    as canonical JSON, ``max_tar_members`` the members of one tar, ``max_unpacked_bytes`` what a tar packed by gzip
    unpacks to, ``max_sample_parts`` and ``max_sample_bytes`` the parts of one sample and all of their bytes.
    """

    max_text_bytes: int = 1 * MIB
    max_image_bytes: int = 32 * MIB
    max_audio_bytes: int = 64 * MIB
    max_metadata_bytes: int = MIB // 4
    max_image_pixels: int = 64_000_000
    max_audio_seconds: float = 600.0
    max_video_bytes: int = 256 * MIB
    max_video_pixels: int = 16_000_000
    max_video_seconds: float = 3600.0
    max_video_frames: int = 250_000
    max_tar_members: int = 2_000_000
    max_unpacked_bytes: int = 32 << 30
    max_key_bytes: int = 512
    max_sample_parts: int = 256
    max_sample_bytes: int = 256 * MIB

    def max_bytes(self, modality: str) -> int:
        """The ceiling on one blob of ``modality``."""
        return getattr(self, f"max_{modality}_bytes", MODALITIES[modality].max_bytes)
