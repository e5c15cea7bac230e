"""The signature of a clip: those of pictures, of the frames that are shown at four times.

It stays nearly the same when a clip is encoded again or scaled. ``nearness`` compares signatures.
"""

from mm_assets.modalities.image.signature import signature as of_picture
from mm_assets.modalities.video.decode import DecodedVideo
from mm_assets.modalities.video.signature_format import PARTS


def signature(video: DecodedVideo) -> bytes:
    """``PARTS`` signatures of pictures, by time."""
    number = len(video.frames)
    places = [(2 * part + 1) * number // (2 * PARTS) for part in range(PARTS)]
    made = {place: of_picture(video.frames[place]) for place in sorted(set(places))}
    return b"".join(made[place] for place in places)
