"""The table of modalities: what the stages know about each without loading it, and where the rest is.

A modality is a row here and a package ``modalities/<name>/`` with one module per aspect. Aspects are loaded by name and
only where they are needed, so that this module needs no decoder and no torch, and a stage's code digest names exactly
the aspects that it uses (``modality_modules``).

Aspects and what each must define:

- ``header``: ``inspect_header(data, limits) -> str | Refusal``, the format or why the blob is refused.
- ``decode``: ``decode(data, config)``, the decoded blob; raises ``BlobRejectedError``. Where ``has_time_ranges``, also
  ``prepare(data, config)``, what all ranges of a blob need, and ``decode_range(prepared, config, range, tracks=)`` of
  a start and an end in microseconds, or None, with those of ``tracks`` that are wanted.
- ``tensor``: ``make_tensor(decoded, config) -> (value, length)`` and ``metadata(config)`` of ``tensors.arrow``.
- ``column``: ``ARROW_TYPE`` of the value, ``read(scalar, shape)`` as an array, ``is_sound(scalar, shape)``.
- ``signals``: ``COLUMNS`` (name and Arrow type), ``measure(decoded, config)``, ``NUMBERS`` and ``FLAGS`` for a
  preview, and ``COMBINED``, how a sample with several parts has one value (``combine``).
- ``tokens``: ``SHAPE`` (names of numbers it needs), ``count(length, shape)`` and ``values(tensor, num_tokens, shape)``.
- ``corruptions``: ``CORRUPTIONS``, by name a function of (value, severity, generator).
- ``augment``: ``augment(values, config, rng, lengths)`` of what ``tokens`` made; ``lengths`` is how many each part has.
- ``embedder`` (torch): ``Embedder(config, shape)``, a module of (values, positions).
- ``bootstrap``: ``make_tensors(dim)`` of the bootstrap encoder.
- ``descriptor`` (torch): ``Descriptor(tensors)``, ``collect(column, shape)``, its inputs, and ``misfit(shape)``.
- ``pretrained``, where a model of ``features/pretrained_types.py`` embeds it: ``collect(column, shape)``, its values as
  such models take them.
- ``preview``, where ``is_pictured``: ``tile(data, side)``.
- ``tracks``, where ``tracks``: ``TRACKS``, by modality a function of the decoded blob that gives a decoded one or None.
- ``nearness``, where ``has_nearness``: ``COLUMN`` of signals and its ``NUM_BYTES``, ``NUM_TABLES``, ``MAX_DEPTH``,
  ``parse(bytes)``, ``are_near(left, right)`` of parsed values, ``outlines(values)``, and of these
  ``components(outlines, table, first, last)`` and ``may_be_near(left, right)``.
"""

import importlib
from dataclasses import dataclass
from typing import Any

PACKAGE = "mm_assets.modalities"


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """One row.

    Attributes:
        name: Also the name of its package, and the prefix of its columns.
        extensions: Of its files, lower case. The header decides what a file really is.
        formats: What ``header`` may answer.
        max_bytes: Ceiling on one blob where the configuration has no ``max_<name>_bytes``.
        is_inline: An index holds the value itself rather than the name of a file.
        is_causal: Its tokens are read in order, and the model predicts each next one; it comes last in a pack.
        is_pictured: It has an aspect ``preview``.
        is_optional: A model has parameters for it only if its plan has samples of it; ``tokens`` names numbers then.
        has_time_ranges: A sample may be a range of time of a blob, which several samples then share.
        tracks: Modalities that its blobs may hold besides; it has an aspect ``tracks``.
        length_column: The column of ``signals.parquet`` with its length; None where every tensor is equally long.
        digest_column: The column of ``signals.parquet`` that is equal for equal content.
        has_nearness: It has an aspect ``nearness``: nearly equal blobs are found by distance.
        corruptions: Names of the damage that an evaluation does by default.
        further_corruptions: Names of damage that it knows besides.
    """

    name: str
    extensions: tuple[str, ...]
    formats: tuple[str, ...]
    max_bytes: int
    is_inline: bool = False
    is_causal: bool = False
    is_pictured: bool = False
    is_optional: bool = False
    has_time_ranges: bool = False
    tracks: tuple[str, ...] = ()
    length_column: str | None
    digest_column: str
    has_nearness: bool = False
    corruptions: tuple[str, ...] = ()
    further_corruptions: tuple[str, ...] = ()

    def aspect(self, name: str) -> Any:
        """The module of one aspect, loaded now."""
        return importlib.import_module(f"{PACKAGE}.{self.name}.{name}")


MODALITIES: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        Modality(
            name="text", extensions=("txt",), formats=("txt",), max_bytes=1 << 20, is_inline=True, is_causal=True,
            length_column="text_tokens", digest_column="text_digest",
            has_nearness=True, corruptions=("text_ocr",),
        ),
        Modality(
            name="image", extensions=("jpg", "jpeg", "png", "webp"), formats=("jpg", "png", "webp"),
            max_bytes=32 << 20, is_pictured=True, length_column=None, digest_column="image_pixels_digest",
            has_nearness=True,
            corruptions=("image_jpeg", "image_blur", "image_low_light"),
        ),
        Modality(
            name="audio", extensions=("wav", "flac", "ogg", "mp3"), formats=("wav", "flac", "ogg", "mp3"),
            max_bytes=64 << 20, length_column="audio_frames", digest_column="audio_decode_digest",
            has_nearness=True,
            corruptions=("audio_noise", "audio_clipping", "audio_low_pass"), further_corruptions=("audio_gaps",),
        ),
        Modality(
            name="video", extensions=("mp4", "m4v", "mov", "webm", "mkv", "avi"),
            formats=("mp4", "mov", "webm", "mkv", "avi"), max_bytes=256 << 20, is_pictured=True, is_optional=True,
            has_time_ranges=True, tracks=("audio",), length_column="video_frames", digest_column="video_decode_digest",
            has_nearness=True,
            corruptions=("video_low_light", "video_lost_frames", "video_shuffled_time"),
        ),
    )
}  # fmt: skip

NAMES = tuple(MODALITIES)
#: Context first, then what is predicted from it: the order of tokens in a pack and of columns of signals.
PACKED = tuple(sorted(NAMES, key=lambda name: MODALITIES[name].is_causal))
#: By modality the others whose blobs may hold it.
HELD_BY = {name: tuple(row.name for row in MODALITIES.values() if name in row.tracks) for name in NAMES}
CAUSAL = tuple(name for name in NAMES if MODALITIES[name].is_causal)
MODALITY_OF = {extension: row.name for row in MODALITIES.values() for extension in row.extensions}


def aspect(modality: str, name: str) -> Any:
    """The module of one aspect of a modality, loaded now."""
    return MODALITIES[modality].aspect(name)


def modality_modules(*aspects: str) -> tuple[str, ...]:
    """Dotted names of the modules of these aspects, of every modality that has them: what a code digest includes."""
    return tuple(
        f"{PACKAGE}.{name}.{asked}"
        for name in NAMES
        for asked in aspects
        if (asked != "nearness" or MODALITIES[name].has_nearness) and (asked != "tracks" or MODALITIES[name].tracks)
    )


def any_of(names: tuple[str, ...] = NAMES) -> str:
    """The names in a sentence: ``text, image or audio``."""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
