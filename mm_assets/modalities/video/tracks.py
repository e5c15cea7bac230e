"""What a video holds of other modalities: its sound."""

from collections.abc import Callable
from typing import Any

from mm_assets.modalities.video.decode import DecodedVideo


def _audio(video: DecodedVideo) -> Any:
    return video.audio


TRACKS: dict[str, Callable[[DecodedVideo], Any]] = {"audio": _audio}
