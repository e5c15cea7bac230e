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
from mm_assets.release.near import CHUNK, Read, Values, Words, chunks, deepen, taking, value_keys

#: Position of the sample, bytes, number that is equal for equal bytes, and what buckets are made from, of every
#: signature; and by table the first bits of its bucket's key.
ARRAYS = ("positions", "signatures", "values", "outlines", "keys")
#: Signatures of which a generation must say what the code says now.
NUM_TRIED = 256
#: Numbers that are looked through at a time, and bits of them that a first look uses.
SEARCHED, FLAG_BITS = 1 << 20, 22


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
    """Adds the bucket keys of one table to the array ``keys``; tables come in their order."""
    with generation.files["keys"].open("wb" if table == 0 else "ab") as file:
        if table == 0:
            _header(file, np.dtype(np.uint32), (num_tables, generation.count))
        _stored(keys).tofile(file)


def _header(file: Any, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def _stored(keys: Words) -> npt.NDArray[np.uint32]:
    return (keys >> np.uint64(32)).astype(np.uint32)


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


def with_values(generations: Sequence[Generation], values: Words, pool: ThreadPoolExecutor) -> tuple[Ints, Words]:
    """The first signature of every one of ``values`` that there is, and these values, ascending."""
    found = [
        generation.first + _rows_with(generation.array("values"), np.sort(values), pool) for generation in generations
    ]
    return _first_of_each(generations, np.concatenate([np.zeros(0, np.int64), *found]))


def in_buckets(
    generations: Sequence[Generation], table: int, keys: Words, pool: ThreadPoolExecutor
) -> tuple[Ints, Words]:
    """The first signature of every value in the buckets of some keys of a table, and the values, ascending."""
    asked = np.unique(_stored(keys))
    found = [generation.first + _rows_with(generation.array("keys")[table], asked, pool) for generation in generations]
    return _first_of_each(generations, np.concatenate([np.zeros(0, np.int64), *found]))


def _first_of_each(generations: Sequence[Generation], numbers: Ints) -> tuple[Ints, Words]:
    """Of ascending numbers the first of each value, in the order of values, and the values."""
    if not len(numbers):
        return numbers, np.zeros(0, np.uint64)
    values, first = np.unique(gather(generations, "values", numbers), return_index=True)
    return numbers[first], values


def _rows_with(stored: npt.NDArray[Any], asked: npt.NDArray[Any], pool: ThreadPoolExecutor) -> Ints:
    """Where ``stored`` has one of ``asked``, which is ascending."""
    if not len(asked):
        return np.zeros(0, np.int64)
    shift = asked.dtype.type(8 * asked.dtype.itemsize - FLAG_BITS)
    flags = np.zeros(1 << FLAG_BITS, np.bool_)
    flags[asked >> shift] = True

    def look(part: slice) -> Ints:
        values = stored[part]
        rows = np.flatnonzero(flags.take(values >> shift))
        place = np.minimum(np.searchsorted(asked, values[rows]), len(asked) - 1)
        return part.start + rows[asked[place] == values[rows]]

    return np.concatenate(list(pool.map(look, chunks(len(stored), SEARCHED))))


def keys_of(values: Values, count: int, pool: ThreadPoolExecutor, *, table: int, depth: int) -> Words:
    """The key of every value's bucket in a table, from its first ``depth`` components."""
    keys = np.zeros(count, np.uint64)
    deepen(np.arange(count, dtype=np.int64), keys, values, pool, table=table, first=0, last=depth)
    return keys


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
    tables = (_stored(keys_of(values, count, pool, table=number, depth=depth)) for number in range(nearness.NUM_TABLES))
    return bool(
        np.array_equal(kept[:count], outlines)
        and np.array_equal(generation.array("values")[:count], value_keys(data))
        and all(np.array_equal(generation.array("keys")[i, :count], table) for i, table in enumerate(tables))
    )
