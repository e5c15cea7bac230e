"""Packs of samples as arrays: deterministic, checked against the plan, versioned.

Several samples share a pack; ``segments`` tells them apart, so attention is block-diagonal. Within a sample the order
is CLS, then the modalities in the order ``PACKED``, text last; of a sample with parts CLS, then its parts in reading
order, as many as a pack has room for. A dead sample keeps its slot: its tokens are there, but masked.

Shapes: P packs, T tokens per pack, S samples, M modalities.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_assets.batching.rows import CLS_TOKENS, part_tokens
from mm_assets.batching.samples import Sample
from mm_assets.errors import StageError
from mm_assets.modalities.kinds import CLS, KIND_OF
from mm_assets.modalities.parts import Parts, lengths_of, split
from mm_assets.modalities.shapes import modalities_of
from mm_assets.modalities.table import MODALITIES, NAMES, PACKED, aspect

SCHEMA = "mm.batch/3"
NO_LABEL = -100

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How samples become tokens; part of a model's configuration.

    ``shape`` holds the numbers of its modalities, ``places`` how many places a model tells apart: 0 where all samples
    it was trained on are plain.
    """

    pack_tokens: int
    shape: Mapping[str, int]
    places: int = 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those it has tokens for, in the order of the table."""
        return modalities_of(self.shape)

    def tokens(self, sample: Sample) -> tuple[int, ...]:
        """Tokens of a sample, by modality in the order of the table."""
        if sample.parts is not None:
            kept = self.kept(sample.parts)
            return tuple(sum(count for modality, count in kept if modality == name) for name in NAMES)
        known = self.modalities
        return tuple(self._count(name, sample.tensors.get(name)) if name in known else 0 for name in NAMES)

    def kept(self, parts: Parts) -> list[tuple[str, int]]:
        """Modality and tokens of the parts that a pack has room for, in reading order."""
        return part_tokens(parts, self.shape, self.pack_tokens, known=self.modalities)

    def length(self, sample: Sample) -> int:
        """Length of a sample in a pack."""
        return CLS_TOKENS + sum(self.tokens(sample))

    def _count(self, name: str, tensor: npt.NDArray[Any] | None) -> int:
        if tensor is None:
            return 0
        length = 1 if MODALITIES[name].length_column is None else len(tensor)
        return aspect(name, "tokens").count(length, self.shape)


def layout_of(values: Mapping[str, int]) -> Layout:
    """The layout in a model's ``config.json``: ``pack_tokens``, ``places`` and the numbers of its modalities."""
    shape = {name: value for name, value in values.items() if name not in ("pack_tokens", "places")}
    return Layout(pack_tokens=values["pack_tokens"], shape=shape, places=values.get("places", 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """One sample's place in a pack.

    ``num_tokens`` (by modality, in the order of the table) is what the plan reserved for it. ``sample`` is None for a
    dead one; ``label`` is a class id or ``NO_LABEL``.
    """

    id: str
    start: int
    num_tokens: tuple[int, ...]
    sample: Sample | None
    label: int = NO_LABEL


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Arrays of a list of packs.

    ``segments_PT`` is 0 for padding and dead samples, else 1 + the sample's number in ``ids``; ``kinds_PT`` is one of
    PAD, CLS and ``KIND_OF``; ``positions_PT`` counts within a sample's modality, over all of its parts; ``places_PT``
    is 1 + the place of the part that a token is of, 0 for other tokens. ``values`` holds by modality what stands behind
    its tokens, in pack order. ``presence_SM`` has the layout's modalities in their order; it is all False for a dead
    sample.
    """

    schema: str
    ids: tuple[str, ...]
    segments_PT: Ints
    kinds_PT: Ints
    positions_PT: Ints
    places_PT: Ints
    values: Mapping[str, npt.NDArray[Any]]
    labels_S: Ints
    presence_SM: npt.NDArray[np.bool_]


def collate(packs: Sequence[Sequence[Slot]], layout: Layout) -> Batch:
    """The arrays of ``packs``.

    Raises:
        StageError: a sample has other tensors than its slot was planned for, or slots overlap.
    """
    slots = [(number, slot) for number, pack in enumerate(packs) for slot in pack]
    shape = (len(packs), layout.pack_tokens)
    segments, kinds, positions, places = (np.zeros(shape, np.int64) for _ in range(4))
    values: dict[str, list[npt.NDArray[Any]]] = {
        name: [aspect(name, "tokens").values(None, 0, layout.shape)] for name in layout.modalities
    }
    for index, (pack, slot) in enumerate(slots):
        _check(slot, layout, free=kinds[pack])
        place = slice(slot.start, slot.start + CLS_TOKENS + sum(slot.num_tokens))
        spans = _spans(slot, layout)
        kinds[pack, place], positions[pack, place], places[pack, place] = _token_columns(spans)
        segments[pack, place] = 0 if slot.sample is None else index + 1
        for span in spans:
            if span.num_tokens:
                made = aspect(span.modality, "tokens").values(span.tensor, span.num_tokens, layout.shape)
                values[span.modality].append(made)
    return Batch(
        schema=SCHEMA,
        ids=tuple(slot.id for _, slot in slots),
        segments_PT=segments,
        kinds_PT=kinds,
        positions_PT=positions,
        places_PT=places,
        values={name: np.concatenate(parts) for name, parts in values.items()},
        labels_S=np.array([NO_LABEL if slot.sample is None else slot.label for _, slot in slots], np.int64),
        presence_SM=np.array(
            [
                [slot.sample is not None and slot.num_tokens[NAMES.index(name)] > 0 for name in layout.modalities]
                for _, slot in slots
            ],
            np.bool_,
        ).reshape(-1, len(layout.modalities)),
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
            f"sample {slot.id}: has other tensors than planned: expected {slot.num_tokens} tokens of "
            f"{', '.join(NAMES)}, got {layout.tokens(slot.sample)}. Compute the batch plan again."
        )


@dataclass(frozen=True, slots=True)
class _Span:
    """Neighbouring tokens of one modality: all of a plain sample's, or those of one part, at ``place`` from 1 on."""

    modality: str
    num_tokens: int
    place: int
    tensor: npt.NDArray[Any] | None


def _spans(slot: Slot, layout: Layout) -> list[_Span]:
    sample = slot.sample
    if sample is None or sample.parts is None:
        by_name = dict(zip(NAMES, slot.num_tokens, strict=True))
        return [_Span(name, by_name[name], 0, None if sample is None else sample.tensors.get(name)) for name in PACKED]
    tensors = {
        name: iter(split(name, tensor, lengths_of(sample.parts, name))) for name, tensor in sample.tensors.items()
    }
    return [
        _Span(modality, num_tokens, place, next(tensors[modality]))
        for place, (modality, num_tokens) in enumerate(layout.kept(sample.parts), 1)
    ]


def _token_columns(spans: Sequence[_Span]) -> tuple[Ints, Ints, Ints]:
    """Kinds, positions and places of a sample's tokens, CLS first."""
    counts = [CLS_TOKENS, *(span.num_tokens for span in spans)]
    kinds = np.repeat(np.array([CLS, *(KIND_OF[span.modality] for span in spans)]), counts)
    places = np.repeat(np.array([0, *(span.place for span in spans)]), counts)
    positions = [np.arange(CLS_TOKENS)]
    done = dict.fromkeys(NAMES, 0)
    for span in spans:
        positions.append(np.arange(done[span.modality], done[span.modality] + span.num_tokens))
        done[span.modality] += span.num_tokens
    return kinds, np.concatenate(positions), places
