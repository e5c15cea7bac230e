"""What a frozen release keeps for those that descend from it, and how they find it: rows, signatures and their groups.

Files are named by the generation whose shards they describe. A release writes those of its own shards, and those of its
parent's where these were not kept: by older code, or for another configuration.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_assets.release.config import PARENT, FreezeConfig
from mm_assets.release.dedup import Ints
from mm_assets.release.generations import ARRAYS, Generation, open_generation
from mm_assets.release.signature_files import NEAR
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, Manifest
from mm_assets.store.tables import write_parquet

logger = logging.getLogger(__name__)

#: Role of a release that the parent descends from, of which only what it kept is read.
ANCESTOR = "ancestor"
GROUPS_FILE = "near_groups.parquet"
GROUPS = pa.schema([("modality", pa.string()), ("number", pa.int64()), ("leader", pa.int64())])
#: Key of schema metadata of groups: by modality how many components decide the first buckets, as JSON.
DEPTHS = b"depths"
#: What names of files that are kept begin with.
_PREFIXES = ("key_columns.", "near_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What ancestors kept, as local files.

    Attributes:
        rows: Of every generation that was kept, in order.
        generations: By modality the signatures of those generations that have any.
        leaders: By modality the smallest signature of every one's group.
        depths: By modality how many components decide the first buckets; none for one without signatures.
    """

    rows: Sequence[Path] = ()
    generations: Mapping[str, Sequence[Generation]] = field(default_factory=dict[str, Sequence[Generation]])
    leaders: Mapping[str, Ints] = field(default_factory=dict[str, Ints])
    depths: Mapping[str, int] = field(default_factory=dict[str, int])


def rows_file(generation: int) -> str:
    """Name of the output with the rows of a generation."""
    return f"key_columns.{generation}.parquet"


def array_file(modality: str, generation: int, array: str) -> str:
    """Name of the output with an array of the signatures of a generation."""
    return f"near_{modality}.{generation}.{array}.npy"


def compares_alike(frozen: Manifest, config: FreezeConfig) -> bool:
    """Whether a frozen release kept the signatures that ``config`` compares; one that compares none keeps none."""
    before: Mapping[str, Any] = frozen.params["config"]
    wanted = before.get("group_near_duplicates") or before.get("drop_near_duplicates")
    is_wanted = config.group_near_duplicates or config.drop_near_duplicates
    return bool(wanted and is_wanted) and before.get("min_linked_text_chars") == config.min_linked_text_chars


def kept_by(manifest: Manifest) -> list[str]:
    """Outputs of a frozen release that its children read."""
    return [item.name for item in manifest.outputs if item.name.startswith(_PREFIXES)]


def ancestors_of(manifest: Manifest) -> Iterator[Input]:
    """The releases before it whose kept files a frozen release read; a child reads them too."""
    yield from manifest.inputs_of("dataset_release", ANCESTOR)
    for entry in manifest.inputs_of("dataset_release", PARENT):
        kept = [item for item in entry.outputs if item.name.startswith(_PREFIXES)]
        kept = [item for item in kept if item.name != GROUPS_FILE]
        if kept:
            yield entry.model_copy(update={"role": ANCESTOR, "outputs": kept})


def without_kept(inputs: Iterable[Input]) -> Iterator[Input]:
    """Inputs of a freeze that reads all shards."""
    for entry in inputs:
        if entry.asset != "dataset_release":
            yield entry
        elif entry.role != ANCESTOR:
            names = [item for item in entry.outputs if not item.name.startswith(_PREFIXES)]
            yield entry.model_copy(update={"outputs": names})


def open_kept(job: Job) -> Kept:
    """Fetches what the inputs of a freeze keep; nothing where the parent's shards are to be read."""
    inputs = [*job.inputs_of("dataset_release", ANCESTOR), *job.inputs_of("dataset_release", PARENT)]
    digests = {item.name: item.digest for entry in inputs for item in entry.outputs}
    if GROUPS_FILE not in digests:
        if inputs:
            logger.warning("dataset_release: the parent kept no key columns that fit; its shards are read again")
        return Kept()
    folder = job.workdir / "kept"
    rows: list[Path] = []
    generations: dict[str, list[Generation]] = {name: [] for name in NEAR}
    while rows_file(len(rows)) in digests:
        number = len(rows)
        rows.append(job.store.fetch(digests[rows_file(number)], folder))
        for name in NEAR:
            if array_file(name, number, "keys") in digests:
                files = {a: job.store.fetch(digests[array_file(name, number, a)], folder) for a in ARRAYS}
                first = sum(generation.count for generation in generations[name])
                generations[name].append(open_generation(files, first))
    groups = pq.read_table(job.store.fetch(digests[GROUPS_FILE], folder))
    depths = json.loads((groups.schema.metadata or {})[DEPTHS])
    leaders = {name: _leaders(groups, name, sum(g.count for g in generations[name])) for name in NEAR}
    return Kept(rows=rows, generations=generations, leaders=leaders, depths=depths)


def _leaders(groups: pa.Table, modality: str, count: int) -> Ints:
    own = groups.filter(pc.equal(groups["modality"], modality))  # pyright: ignore[reportAttributeAccessIssue]
    leaders = np.arange(count, dtype=np.int64)
    leaders[own["number"].to_numpy()] = own["leader"].to_numpy()
    return leaders


def write_groups(leaders: Mapping[str, Ints], depths: Mapping[str, int], path: Path) -> int:
    """Writes who leads the group of every signature that does not lead its own; returns their number."""
    tables = [GROUPS.empty_table()]
    for name, leader in sorted(leaders.items()):
        led = np.flatnonzero(leader != np.arange(len(leader)))
        columns = [pa.array([name] * len(led), pa.string()), pa.array(led), pa.array(leader[led])]
        tables.append(pa.table(columns, schema=GROUPS))
    schema = GROUPS.with_metadata({DEPTHS: json.dumps(dict(sorted(depths.items()))).encode()})
    table = pa.concat_tables(tables).combine_chunks().replace_schema_metadata(schema.metadata)
    write_parquet(table, path)
    return table.num_rows


def near_files(generations: Iterable[tuple[str, int, Generation]]) -> dict[str, Path]:
    """By the name of its output every array of some generations: modality, number, signatures."""
    return {
        array_file(name, number, array): generation.files[array]
        for name, number, generation in generations
        for array in ARRAYS
    }
