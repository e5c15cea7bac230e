"""FLAC as libsndfile reads it: from its beginning to its end, whatever length its header declares."""

from io import BytesIO

import soundfile

#: Within the stream's first block: 20 bits of rate, 3 of channels, 5 of depth and 36 of samples, 0 for unknown.
LENGTH_OFFSET, LENGTH_BYTES, LENGTH_BITS = 18, 8, 36
BLOCK_FRAMES = 1 << 16
#: What some programs write behind the last frame: a tag of ID3, version 1.
TAG, TAG_BYTES = b"TAG", 128


class ForwardSound(soundfile.SoundFile):
    """A sound that is read from its beginning to its end.

    soundfile seeks after a read, which needs a length, and fails where the stream ends before it.
    """

    def seekable(self) -> bool:
        """Never."""
        return False


def open_sound(data: bytes) -> soundfile.SoundFile:
    """The sound in ``data``, which can be read forward."""
    if data.startswith(b"fLaC"):
        return ForwardSound(BytesIO(without_tag(data)))
    return soundfile.SoundFile(BytesIO(data))


def open_whole(data: bytes) -> soundfile.SoundFile:
    """The sound in ``data``; of a FLAC stream all of it can be read, also what is behind its declared length."""
    if not data.startswith(b"fLaC"):
        return open_sound(data)
    buffer = BytesIO(without_tag(data))
    buffer.seek(LENGTH_OFFSET)
    field = int.from_bytes(buffer.read(LENGTH_BYTES), "big")
    buffer.seek(LENGTH_OFFSET)
    buffer.write((field >> LENGTH_BITS << LENGTH_BITS).to_bytes(LENGTH_BYTES, "big"))
    buffer.seek(0)
    return ForwardSound(buffer)


def without_tag(data: bytes) -> bytes:
    """``data`` without a tag behind its last frame, in which a decoder would look for another one."""
    return data[:-TAG_BYTES] if data[-TAG_BYTES:].startswith(TAG) else data


def has_no_length(data: bytes) -> bool:
    """Whether it is a FLAC stream that leaves out how many samples it has."""
    if not data.startswith(b"fLaC"):
        return False
    field = int.from_bytes(data[LENGTH_OFFSET : LENGTH_OFFSET + LENGTH_BYTES], "big")
    return field % (1 << LENGTH_BITS) == 0


def count_frames(sound: ForwardSound, *, at_most: int) -> int:
    """How many samples a channel has, found by decoding; counting ends soon after ``at_most``."""
    num_frames = 0
    while num_frames <= at_most:
        block = sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        if not len(block):
            break
        num_frames += len(block)
    return num_frames
