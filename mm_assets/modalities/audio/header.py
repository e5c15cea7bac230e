"""What a clip's header declares: libsndfile opens it without decoding; its structure is compared with the file.

A FLAC stream whose header leaves out its length is decoded to find it, up to the ceiling.
"""

from dataclasses import dataclass
from typing import Protocol

import soundfile

from mm_assets.modalities.audio.flac import ForwardSound, count_frames, has_no_length, open_sound
from mm_assets.modalities.audio.mp3 import check_mp3
from mm_assets.modalities.audio.ogg import check_ogg
from mm_assets.modalities.audio.wav import check_wav
from mm_assets.modalities.reasons import Refusal

MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64


class Limits(Protocol):
    """What judging a header reads of a configuration."""

    @property
    def max_audio_seconds(self) -> float:
        """Declared duration."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioHeader:
    """Declared format and size."""

    format: str
    num_frames: int
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.num_frames / self.sample_rate

    @property
    def decoded_bytes(self) -> int:
        """Size as float32, all channels."""
        return self.num_frames * self.channels * 4


def inspect_header(data: bytes, limits: Limits) -> str | Refusal:
    """``wav``, ``flac``, ``ogg`` or ``mp3``, or why the bytes are refused."""
    found = read_header(data, max_seconds=limits.max_audio_seconds)
    return found if isinstance(found, Refusal) else found.format


def read_header(data: bytes, *, max_seconds: float) -> AudioHeader | Refusal:
    """The header of a clip of at most ``max_seconds``."""
    kind = _format(data)
    if kind is None:
        return Refusal("unsupported_format", "audio is neither WAV, FLAC, Ogg nor MP3")
    check = {"wav": check_wav, "ogg": check_ogg}.get(kind)
    refusal = None if check is None else check(data)
    if refusal is not None:
        return refusal
    try:
        with open_sound(data) as sound:
            num_frames = sound.frames
            if isinstance(sound, ForwardSound) and has_no_length(data):
                num_frames = count_frames(sound, at_most=int(max_seconds * sound.samplerate))
                if num_frames > max_seconds * sound.samplerate:
                    return Refusal("too_many_seconds", f"flac holds more than the {max_seconds:g} s that are allowed")
            header = AudioHeader(
                format=kind, num_frames=num_frames, sample_rate=sound.samplerate, channels=sound.channels
            )
    except (soundfile.LibsndfileError, RuntimeError) as error:
        # The library's own sentence: the whole message also holds the address of the buffer, another one each time.
        said = error.error_string if isinstance(error, soundfile.LibsndfileError) else type(error).__name__
        return Refusal("bad_header", f"{kind} header cannot be read: {said}")
    refusal = _check(header, max_seconds)
    if refusal is None and kind == "mp3":
        refusal = check_mp3(data, header.num_frames)
    return refusal or header


def _check(header: AudioHeader, max_seconds: float) -> Refusal | None:
    kind, rate, channels = header.format, header.sample_rate, header.channels
    if not MIN_RATE <= rate <= MAX_RATE or not 1 <= channels <= MAX_CHANNELS:
        return Refusal(
            "header_lies",
            f"{kind} declares {rate} Hz and {channels} channels; {MIN_RATE} to {MAX_RATE} Hz and up to "
            f"{MAX_CHANNELS} channels are possible",
        )
    if header.num_frames <= 0:
        return Refusal("no_content", f"{kind} declares no sound")
    if header.seconds > max_seconds:
        return Refusal(
            "too_many_seconds", f"{kind} declares {header.seconds:.1f} s of sound; {max_seconds:g} s are allowed"
        )
    return None


def _format(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    if data.startswith(b"fLaC"):
        return "flac"
    if data.startswith(b"OggS"):
        return "ogg"
    is_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0
    return "mp3" if data.startswith(b"ID3") or is_frame else None
