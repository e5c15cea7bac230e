"""The signatures that a generation of shards adds to a lineage, as arrays that a child searches and never makes again.

Every array is a file that is mapped where it is read. Signatures of one modality are numbered through all generations
of a lineage, in the order of their samples; ``keys`` says in which bucket of every table each of them is.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_assets.release.dedup import Ints
from mm_assets.release.near import CHUNK, Read, Values, Words, bucket_keys, chunks, taking, value_keys

#: Position of the sample, bytes, number that is equal for equal bytes, and what buckets are made from, of every
#: signature; and by table the first bits of its bucket's key.
ARRAYS = ("positions", "signatures", "values", "outlines", "keys")
#: Signatures of which a generation must say what the code says now.
NUM_TRIED = 256
#: Numbers that are looked through at a time, and bits of them that a first look uses.
SEARCHED, FLAG_BITS = 1 << 20, 22
#: What is beyond the bucket in a refined key.
_OF_BUCKET = np.uint64(32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """Signatures of one modality: ``first`` is the number of its first one."""

    first: int
    count: int
    files: Mapping[str, Path]

    def array(self, name: str) -> npt.NDArray[Any]:
        """One of ``ARRAYS``, mapped anew for every call: pages that were read do not stay."""
        return np.load(self.files[name], mmap_mode="r")


def open_generation(files: Mapping[str, Path], first: int) -> Generation:
    """The generation in some files."""
    return Generation(first=first, count=len(np.load(files["positions"], mmap_mode="r")), files=files)


def write_generation(
    positions: Ints, read: Read, nearness: Any, folder: Path, *, first: int, pool: ThreadPoolExecutor
) -> Generation:
    """Writes all arrays but ``keys``, which ``write_keys`` writes.

    Args:
        positions: Of the samples that signatures belong to, in their order.
        read: Reads signatures by their place in ``positions``.
        nearness: The aspect that says what is made from a signature.
        folder: Does not exist.
        first: Number of the first signature.
        pool: Works for it.
    """
    folder.mkdir(parents=True)
    count = len(positions)
    files = {name: folder / f"{name}.npy" for name in ARRAYS}

    def made(part: slice) -> dict[str, npt.NDArray[Any]]:
        data = read(np.arange(part.start, part.stop, dtype=np.int64))
        outlines = np.asarray(nearness.outlines(nearness.parse(data)))
        return {"positions": positions[part], "signatures": data, "values": value_keys(data), "outlines": outlines}

    parts = list(chunks(count, CHUNK))
    # Two at a time: what waits to be written is in memory.
    for start in range(0, len(parts), 2):
        for part, arrays in zip(parts[start : start + 2], pool.map(made, parts[start : start + 2]), strict=True):
            for name, array in arrays.items():
                with files[name].open("ab") as file:
                    if part.start == 0:
                        _header(file, array.dtype, (count, *array.shape[1:]))
                    array.tofile(file)
    return Generation(first=first, count=count, files=files)


def write_keys(generation: Generation, table: int, num_tables: int, keys: Words) -> None:
    """Adds the refined bucket keys of one table to the array ``keys``; tables come in their order."""
    with generation.files["keys"].open("wb" if table == 0 else "ab") as file:
        if table == 0:
            _header(file, keys.dtype, (num_tables, generation.count))
        keys.tofile(file)


def _header(file: Any, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def gather(generations: Sequence[Generation], name: str, numbers: Ints) -> npt.NDArray[Any]:
    """Rows of an array of all generations by the numbers of their signatures."""
    result: npt.NDArray[Any] | None = None
    for generation in generations:
        places = np.flatnonzero((numbers >= generation.first) & (numbers < generation.first + generation.count))
        array = generation.array(name)
        if result is None:
            result = np.empty((len(numbers), *array.shape[1:]), array.dtype)
        result[places] = array[numbers[places] - generation.first]
    if result is None:
        raise ValueError(f"{name}: expected a generation with signatures, got none.")
    return result


def in_buckets(
    generations: Sequence[Generation], table: int, asked: Words, pool: ThreadPoolExecutor
) -> tuple[Ints, Words]:
    """Signatures in the buckets of some refined keys of a table, in their order, and their keys."""
    buckets = np.unique(asked >> _OF_BUCKET)
    flags = np.zeros(1 << FLAG_BITS, np.bool_)
    flags[buckets >> np.uint64(32 - FLAG_BITS)] = True

    def look(place: tuple[Generation, slice]) -> tuple[Ints, Words]:
        generation, part = place
        keys = np.asarray(generation.array("keys")[table, part])
        rows = np.flatnonzero(flags.take(keys >> np.uint64(64 - FLAG_BITS)))
        keys = keys[rows]
        near = np.minimum(np.searchsorted(buckets, keys >> _OF_BUCKET), len(buckets) - 1)
        is_there = buckets[near] == keys >> _OF_BUCKET
        return generation.first + part.start + rows[is_there], keys[is_there]

    places = [(generation, part) for generation in generations for part in chunks(generation.count, SEARCHED)]
    found = list(pool.map(look, places)) if len(buckets) else []
    empty = (np.zeros(0, np.int64), np.zeros(0, np.uint64))
    return joined_arrays([empty, *found])


def joined_arrays(found: Sequence[tuple[Ints, Words]]) -> tuple[Ints, Words]:
    """Numbers and keys one after the other."""
    return np.concatenate([numbers for numbers, _ in found]), np.concatenate([keys for _, keys in found])


def is_current(generation: Generation, nearness: Any, depth: int, pool: ThreadPoolExecutor) -> bool:
    """Whether the code would make the same of the first signatures of a generation."""
    count = min(generation.count, NUM_TRIED)
    data = np.asarray(generation.array("signatures")[:count])
    if data.shape[1:] != (nearness.NUM_BYTES,) or generation.array("keys").shape[0] != nearness.NUM_TABLES:
        return False
    outlines = np.asarray(nearness.outlines(nearness.parse(data)))
    kept = generation.array("outlines")
    if (kept.dtype, kept.shape[1:]) != (outlines.dtype, outlines.shape[1:]):
        return False
    values = Values(outlines=taking(outlines), read=data.__getitem__, nearness=nearness)
    tables = (bucket_keys(values, count, pool, table=i, depth=depth)[1] for i in range(nearness.NUM_TABLES))
    return bool(
        np.array_equal(kept[:count], outlines)
        and np.array_equal(generation.array("values")[:count], value_keys(data))
        and all(np.array_equal(generation.array("keys")[i, :count], table) for i, table in enumerate(tables))
    )
