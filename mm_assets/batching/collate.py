"""Packs of samples as arrays: deterministic, checked against the plan, versioned.

Several samples share a pack; ``segments`` tells them apart, so attention is block-diagonal. Within a sample the order
is CLS, image patches, audio stacks, text tokens. A dead sample keeps its slot: its tokens are there, but masked.

Shapes: P packs, T tokens per pack, S samples, N images, H height, W width, C channels, A audio tokens, F features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm_assets.batching.rows import CLS_TOKENS
from mm_assets.batching.samples import Sample
from mm_assets.errors import StageError

SCHEMA = "mm.batch/1"
PAD, CLS, TEXT, IMAGE, AUDIO = range(5)
MODALITIES = ("text", "image", "audio")
NO_LABEL = -100

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How samples become tokens; part of a model's configuration."""

    pack_tokens: int
    image_size: int
    image_patch: int
    num_mels: int
    audio_stack: int

    @property
    def image_tokens(self) -> int:
        """Tokens of one picture."""
        return (self.image_size // self.image_patch) ** 2

    def tokens(self, sample: Sample) -> tuple[int, int, int]:
        """Text, image and audio tokens of a sample."""
        return (
            0 if sample.text_T is None else len(sample.text_T),
            0 if sample.image_HWC is None else self.image_tokens,
            0 if sample.audio_FM is None else -(-len(sample.audio_FM) // self.audio_stack),
        )

    def length(self, sample: Sample) -> int:
        """Length of a sample in a pack."""
        return CLS_TOKENS + sum(self.tokens(sample))


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """One sample's place in a pack.

    ``num_tokens`` (text, image, audio) is what the plan reserved for it. ``sample`` is None for a dead one; ``label``
    is a class id or ``NO_LABEL``.
    """

    id: str
    start: int
    num_tokens: tuple[int, int, int]
    sample: Sample | None
    label: int = NO_LABEL


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Arrays of a list of packs.

    ``segments_PT`` is 0 for padding and dead samples, else 1 + the sample's number in ``ids``; ``kinds_PT`` is one of
    PAD, CLS, TEXT, IMAGE, AUDIO; ``positions_PT`` counts within a sample's modality; ``tokens_PT`` holds text token
    ids. ``images_NHWC`` and ``audio_AF`` hold what stands behind the image and audio tokens, in pack order.
    ``presence_SM`` is in the order of ``MODALITIES`` and all False for a dead sample.
    """

    schema: str
    ids: tuple[str, ...]
    segments_PT: Ints
    kinds_PT: Ints
    positions_PT: Ints
    tokens_PT: Ints
    images_NHWC: npt.NDArray[np.uint8]
    audio_AF: npt.NDArray[np.float32]
    labels_S: Ints
    presence_SM: npt.NDArray[np.bool_]


def collate(packs: Sequence[Sequence[Slot]], layout: Layout) -> Batch:
    """The arrays of ``packs``.

    Raises:
        StageError: a sample has other tensors than its slot was planned for, or slots overlap.
    """
    slots = [(number, slot) for number, pack in enumerate(packs) for slot in pack]
    shape = (len(packs), layout.pack_tokens)
    segments, kinds, positions, tokens = (np.zeros(shape, np.int64) for _ in range(4))
    images: list[npt.NDArray[np.uint8]] = []
    stacks: list[npt.NDArray[np.float32]] = []
    for index, (pack, slot) in enumerate(slots):
        _check(slot, layout, free=kinds[pack])
        place = slice(slot.start, slot.start + CLS_TOKENS + sum(slot.num_tokens))
        kinds[pack, place], positions[pack, place] = _token_columns(*slot.num_tokens)
        segments[pack, place] = 0 if slot.sample is None else index + 1
        if slot.num_tokens[1]:
            images.append(_image(slot.sample, layout))
        if slot.num_tokens[2]:
            stacks.append(_stack(slot, layout))
        if slot.sample is not None and slot.sample.text_T is not None:
            tokens[pack, place.stop - len(slot.sample.text_T) : place.stop] = slot.sample.text_T
    size, features = layout.image_size, layout.audio_stack * layout.num_mels
    return Batch(
        schema=SCHEMA,
        ids=tuple(slot.id for _, slot in slots),
        segments_PT=segments,
        kinds_PT=kinds,
        positions_PT=positions,
        tokens_PT=tokens,
        images_NHWC=np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8),
        audio_AF=np.concatenate(stacks) if stacks else np.zeros((0, features), np.float32),
        labels_S=np.array([NO_LABEL if slot.sample is None else slot.label for _, slot in slots], np.int64),
        presence_SM=np.array(
            [[slot.sample is not None and count > 0 for count in slot.num_tokens] for _, slot in slots], np.bool_
        ).reshape(-1, len(MODALITIES)),
    )


def pack_samples(samples: Iterable[Sample], layout: Layout) -> list[list[Slot]]:
    """Packs in the order of the samples: each sample goes to the last pack, or opens the next one."""
    packs: list[list[Slot]] = []
    end = layout.pack_tokens
    for sample in samples:
        length = layout.length(sample)
        if end + length > layout.pack_tokens:
            packs.append([])
            end = 0
        packs[-1].append(Slot(id=sample.id, start=end, num_tokens=layout.tokens(sample), sample=sample))
        end += length
    return packs


def _check(slot: Slot, layout: Layout, *, free: Ints) -> None:
    end = slot.start + CLS_TOKENS + sum(slot.num_tokens)
    if end > layout.pack_tokens or free[slot.start : end].any():
        raise StageError(f"sample {slot.id}: does not fit its slot: tokens {slot.start} to {end} are taken or outside.")
    if slot.sample is not None and layout.tokens(slot.sample) != slot.num_tokens:
        raise StageError(
            f"sample {slot.id}: has other tensors than planned: expected {slot.num_tokens} text, image and audio "
            f"tokens, got {layout.tokens(slot.sample)}. Compute the batch plan again."
        )


def _token_columns(num_text: int, num_image: int, num_audio: int) -> tuple[Ints, Ints]:
    counts = (CLS_TOKENS, num_image, num_audio, num_text)
    kinds = np.repeat(np.array([CLS, IMAGE, AUDIO, TEXT]), counts)
    return kinds, np.concatenate([np.arange(count) for count in counts])


def _image(sample: Sample | None, layout: Layout) -> npt.NDArray[np.uint8]:
    if sample is None or sample.image_HWC is None:
        return np.zeros((layout.image_size, layout.image_size, 3), np.uint8)
    return sample.image_HWC


def _stack(slot: Slot, layout: Layout) -> npt.NDArray[np.float32]:
    num_stacks, width = slot.num_tokens[2], layout.audio_stack
    frames_FM = np.zeros((num_stacks * width, layout.num_mels), np.float32)
    if slot.sample is not None and slot.sample.audio_FM is not None:
        frames_FM[: len(slot.sample.audio_FM)] = slot.sample.audio_FM
    return frames_FM.reshape(num_stacks, width * layout.num_mels)
