"""Speech by eSpeak NG, the same bytes for the same text wherever and in whatever order it is spoken.

The library keeps state between calls, so one text spoken twice gives two different recordings. Every utterance is
therefore spoken by a ``fork()`` of a process that initialised the library and chose the voice, and did nothing else.
That process is a program of its own (``python -m mm_assets.demo.speech``): it has no threads and is small to fork.
It reads one JSON array of ``[voice, text]`` from stdin and writes, in that order, a 4-byte length and the samples.
"""

import ctypes
import io
import json
import os
import struct
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mm_assets.errors import SettingsError, StageError

SAMPLE_RATE = 22_050
SYNCHRONOUS = 2
CHARS_UTF8 = 1
LENGTH = struct.Struct("<I")

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A text and the eSpeak voice that speaks it (``fr``, never ``fr-fr``)."""

    voice: str
    text: str


def speak(
    utterances: Sequence[Utterance],
    *,
    num_workers: int = 2,
    on_spoken: Callable[[], None] = lambda: None,
) -> list[bytes]:
    """One 16-bit mono WAV file per utterance, in order; ``num_workers`` changes the speed and nothing else.

    Raises:
        StageError: a speech process ended early.
    """
    wavs: list[bytes] = [b""] * len(utterances)
    # Worker w speaks utterances w, w + num_workers, ...; all of them run while the first is being read.
    parts = [range(first, len(utterances), num_workers) for first in range(num_workers)]
    processes = [_start([utterances[index] for index in part]) for part in parts]
    try:
        streams = [_read_samples(process) for process in processes]
        for index in range(len(utterances)):
            wavs[index] = to_wav(next(streams[index % num_workers]))
            on_spoken()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return wavs


def to_wav(samples: bytes) -> bytes:
    """A WAV file of 16-bit mono ``samples`` at ``SAMPLE_RATE``."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples)
    return buffer.getvalue()


def _start(utterances: Sequence[Utterance]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mm_assets.demo.speech"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps([[utterance.voice, utterance.text] for utterance in utterances]).encode())
    process.stdin.close()
    process.stdin = None
    return process


def _read_samples(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout is not None
    while header := process.stdout.read(LENGTH.size):
        yield process.stdout.read(LENGTH.unpack(header)[0])
    raise StageError(f"speech: the eSpeak process ended early with status {process.wait()}. Run the command again.")


class _Espeak:
    """The library, initialised once and silent: only forks of it speak."""

    def __init__(self) -> None:
        spec = find_spec("espeakng_loader")
        if spec is None or spec.origin is None:
            raise SettingsError("speech: espeakng-loader is not installed. Install the project's `embedded` extra.")
        folder = Path(spec.origin).parent
        self._library = ctypes.CDLL(str(folder / "libespeak-ng.so"))
        self._library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, str(folder).encode(), 0)
        if rate != SAMPLE_RATE:
            raise SettingsError(f"speech: eSpeak NG did not start: expected {SAMPLE_RATE} Hz, got {rate}.")

    def speak_in_fork(self, voice: str, text: str) -> bytes:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            status = 1
            try:
                with os.fdopen(writer, "wb") as pipe:
                    pipe.write(self._speak(voice, text))
                status = 0
            finally:
                # Not sys.exit: the parent's buffered output must not be written twice.
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            samples = pipe.read()
        _, status = os.waitpid(child, 0)
        if status != 0:
            raise StageError(f"speech: eSpeak NG could not speak {text!r} with voice {voice}.")
        return samples

    def _speak(self, voice: str, text: str) -> bytes:
        samples = bytearray()

        def collect(data: int | None, num_samples: int, events: int | None) -> int:
            del events
            if data and num_samples > 0:
                samples.extend(ctypes.string_at(data, num_samples * 2))
            return 0

        callback = _Callback(collect)
        self._library.espeak_SetSynthCallback(callback)
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise StageError(f"speech: eSpeak NG has no voice {voice}.")
        data = text.encode() + b"\0"
        if self._library.espeak_Synth(data, len(data), 0, 0, 0, CHARS_UTF8, None, None) != 0:
            raise StageError(f"speech: eSpeak NG could not speak {text!r}.")
        return bytes(samples)


def _serve() -> None:
    requests = json.load(sys.stdin)
    espeak = _Espeak()
    for voice, text in requests:
        samples = espeak.speak_in_fork(voice, text)
        sys.stdout.buffer.write(LENGTH.pack(len(samples)) + samples)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
