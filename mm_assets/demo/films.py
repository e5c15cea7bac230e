"""The demo's second drop: synthetic films, in which pictures of emoji move while their names are spoken.

An index whose rows are scenes: ranges of time of a few files. The same arguments give the same bytes on every run and
machine: pictures are stored by FFV1 without loss and sound as PCM, so that no encoder's arithmetic is in them.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from mm_assets.demo.catalog import LANGUAGES, Emoji, choose, read_catalog
from mm_assets.demo.data import PACKAGES, source_yaml
from mm_assets.demo.speech import SAMPLE_RATE, Utterance, speak
from mm_assets.drops.create import create_drop
from mm_assets.drops.record import SOURCE_FILE
from mm_assets.drops.source import parse_source

SOURCE = "emoji-films"
#: For this many emoji of the first drop there is a scene, up to ``MAX_SCENES``.
EMOJI_PER_SCENE, MAX_SCENES, SCENES_PER_FILM = 8, 48, 8
SIDE, FPS = 96, 10
#: Of a sound whose samples a frame holds a whole number of.
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
MIN_FRAMES = 10
HEADER_BYTES = 44
WHITE = (255, 255, 255)

SOURCE_SYSTEM = (
    "Synthetic, nothing in it was filmed; pictures of Twemoji move over a white background while eSpeak NG reads "
    f"their names. {PACKAGES}"
)
ANNOTATION = {
    "films": f"synthetic: Twemoji graphics (CC-BY 4.0) that move sideways, {FPS} frames per second, FFV1",
    "speech": "synthetic: the name read by eSpeak NG 1.52, 22,050 Hz, 16-bit mono",
    "scenes": "columns start_s and end_s, exact to a frame",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scene:
    emoji: Emoji
    language: str

    @property
    def name(self) -> str:
        return self.emoji.names[self.language]


def build_films_drop(folder: Path, drop: str, *, num_emoji: int, seed: int, captured: tuple[str, str]) -> Path:
    """Writes the whole drop into ``folder`` and returns it.

    Args:
        folder: Created if it does not exist.
        drop: Its name.
        num_emoji: How many emoji the demo's first drop takes; the films show others, so that none is in two splits.
        seed: Of that choice.
        captured: First and last moment of its capture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    catalog = read_catalog()
    taken = {emoji.codepoints for emoji in choose(catalog, num_emoji, seed=seed)}
    number = min(MAX_SCENES, max(1, num_emoji // EMOJI_PER_SCENE))
    shown = [emoji for emoji in choose(catalog, 2 * (num_emoji + number), seed=seed) if emoji.codepoints not in taken]
    pictured = [emoji for emoji in shown if emoji.picture is not None]
    scenes = [
        _Scene(emoji=emoji, language=LANGUAGES[index % len(LANGUAGES)]) for index, emoji in enumerate(pictured[:number])
    ]
    speech = speak([Utterance(voice=scene.language, text=scene.name) for scene in scenes], num_workers=1)
    rows: list[dict[str, Any]] = []
    for film, first in enumerate(range(0, len(scenes), SCENES_PER_FILM)):
        name = f"film-{film:02d}.mkv"
        part = slice(first, first + SCENES_PER_FILM)
        data, cuts = _film(scenes[part], speech[part])
        (folder / name).write_bytes(data)
        rows += [_row(scene, name, *cut) for scene, cut in zip(scenes[part], cuts, strict=True)]
    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    (folder / "index.jsonl").write_text("".join(lines), encoding="utf-8")
    description = source_yaml(SOURCE, SOURCE_SYSTEM)
    (folder / SOURCE_FILE).write_text(description, encoding="utf-8")
    described = parse_source(description.encode(), str(folder / SOURCE_FILE))
    create_drop(
        folder, SOURCE, drop, captured_from=captured[0], captured_to=captured[1],
        annotation=described.annotation | ANNOTATION,
    )  # fmt: skip
    return folder


def _row(scene: _Scene, film: str, first_frame: int, num_frames: int) -> dict[str, Any]:
    return {
        "id": f"{scene.emoji.codepoints}-{scene.language}", "video": film, "start_s": first_frame / FPS,
        "end_s": (first_frame + num_frames) / FPS, "text": scene.name, "label": scene.emoji.category,
        "language": scene.language, "group": scene.emoji.codepoints, "made": "synthetic",
    }  # fmt: skip


def _film(scenes: Sequence[_Scene], speech: Sequence[bytes]) -> tuple[bytes, list[tuple[int, int]]]:
    """A Matroska file, and per scene its first frame and its number of frames."""
    frames: list[npt.NDArray[np.uint8]] = []
    sound: list[npt.NDArray[np.int16]] = []
    cuts: list[tuple[int, int]] = []
    for scene, wav in zip(scenes, speech, strict=True):
        samples = np.frombuffer(wav[HEADER_BYTES:], "<i2")
        num_frames = max(MIN_FRAMES, -(-len(samples) // SAMPLES_PER_FRAME))
        cuts.append((len(frames), num_frames))
        frames += _moving(scene.emoji, num_frames)
        sound.append(np.pad(samples, (0, num_frames * SAMPLES_PER_FRAME - len(samples))))
    return _encode(frames, np.concatenate(sound)), cuts


def _moving(emoji: Emoji, num_frames: int) -> list[npt.NDArray[np.uint8]]:
    """The picture on its way from the left to the right."""
    assert emoji.picture is not None
    with Image.open(emoji.picture) as file:
        picture = file.convert("RGBA")
    made: list[npt.NDArray[np.uint8]] = []
    for number in range(num_frames):
        canvas = Image.new("RGBA", (SIDE, SIDE), (*WHITE, 255))
        left = (SIDE - picture.width) * number // max(1, num_frames - 1)
        canvas.alpha_composite(picture, (left, (SIDE - picture.height) // 2))
        made.append(np.asarray(canvas.convert("RGB")))
    return made


def _encode(frames: Sequence[npt.NDArray[np.uint8]], samples: npt.NDArray[np.int16]) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska", options={"fflags": "+bitexact"}) as output:
        pictures: Any = output.add_stream("ffv1", rate=FPS, options={"flags": "+bitexact"})
        pictures.width = pictures.height = SIDE
        pictures.pix_fmt = "bgr0"
        pictures.codec_context.thread_count = 1
        track: Any = output.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0", threads=1)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(pictures.encode(frame))
            first = number * SAMPLES_PER_FRAME
            piece = np.ascontiguousarray(samples[None, first : first + SAMPLES_PER_FRAME])
            heard = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
            output.mux(track.encode(heard))
        output.mux(pictures.encode(None))
        output.mux(track.encode(None))
    return buffer.getvalue()
