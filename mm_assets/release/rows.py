"""The narrow columns of a release's samples as one DuckDB table: identities, labels and signals, never payloads.

Shards are read in turn and in batches, so memory does not grow with their number or size. Signatures, which are the
widest columns and are compared and never queried, go to flat files beside the database.
"""

import json
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_assets.drops.labels import LABEL_FIELDS
from mm_assets.errors import StageError
from mm_assets.features.schema import EMBEDDING_SIGNALS, MEASURED_PARTS_FIELD, SIGNALS
from mm_assets.identity.canonical import canonical_json
from mm_assets.modalities.table import MODALITIES
from mm_assets.release.shards import Shard
from mm_assets.release.signature_files import SIGNATURE_COLUMNS, SignatureFiles
from mm_assets.store.objects import Store
from mm_assets.store.tables import ROW_GROUP_ROWS, write_batches

ORIGIN = pa.schema(
    [*((name, pa.string()) for name in ("id", "source", "drop", "label", "language", "group")), *LABEL_FIELDS]
)

#: What a curation policy may name: every signal, and where a sample comes from.
POLICY_SCHEMA = pa.schema([*ORIGIN, *(field for field in (*SIGNALS, *EMBEDDING_SIGNALS) if field.name != "id")])
#: The order of ``samples.parquet``; ``position`` counts rows in the order of shards instead.
BY_ID = "id, generation, shard, row"
#: Of two equal samples the first in this order is the original.
BY_SENIORITY = "generation, id, shard, row"

_PLACE = pa.schema([("position", pa.int64()), *((name, pa.int32()) for name in ("generation", "shard", "row"))])
_STORED = pa.schema(
    [*_PLACE, *(field for field in POLICY_SCHEMA if field.name not in SIGNATURE_COLUMNS), MEASURED_PARTS_FIELD]
)
_MEASURED = SIGNALS.append(MEASURED_PARTS_FIELD)
#: What a release keeps of its rows for those that descend from it; ``position`` follows from the place.
KEPT_ROWS = pa.schema([field for field in _STORED if field.name not in ("position", "generation")])
#: Key of schema metadata of kept rows: what the tables of signals state about themselves, as JSON.
STATED = b"stated"
#: Rows that are read of a shard, and rows that are handed to the database, at a time.
BATCH_ROWS, INSERT_ROWS = 1 << 16, 1 << 17
#: Shards that are fetched while another one is read.
AHEAD = 4
#: Of the database; with 1 GiB, ten million rows end in an error where labels are summed up.
MEMORY_LIMIT = "2GiB"
#: Of the database while something else needs the memory.
IDLE_LIMIT = "256MiB"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows(AbstractContextManager["Rows"]):
    """Every row of a release.

    Attributes:
        database: Its table ``samples`` is in the order of ``position``, and so is what is selected from it alone.
        starts: The position of every shard's first row, and then ``num_rows``.
        signatures: Files of those that were read of shards: of kept rows they are kept elsewhere.
        generations: The position of every generation's first row, and then ``num_rows``.
        num_kept: How many generations' rows were kept, and not read of shards.
        stated: By generation what the tables of signals state about themselves, without repetition.
    """

    database: duckdb.DuckDBPyConnection
    starts: npt.NDArray[np.int64]
    signatures: SignatureFiles
    generations: npt.NDArray[np.int64]
    num_kept: int
    stated: Sequence[Sequence[Mapping[str, str]]]

    @property
    def num_rows(self) -> int:
        """Rows of ``samples``."""
        return int(self.starts[-1])

    def __exit__(self, *_: object) -> None:
        self.database.close()


#: What a table says about a modality that was not known when it was written: no sample has it.
_ABSENT: dict[str, bool | int] = {f"has_{name}": False for name in MODALITIES} | {
    row.length_column: 0 for row in MODALITIES.values() if row.length_column is not None
}


def open_database(spill: Path) -> duckdb.DuckDBPyConnection:
    """A database that keeps what exceeds its memory in the folder ``spill`` and reaches nothing outside itself."""
    database = duckdb.connect()
    database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    database.execute(f"SET temp_directory = '{str(spill).replace(chr(39), chr(39) * 2)}'")
    database.execute("SET enable_external_access = false")
    # A policy may name times of day, which are the same everywhere.
    database.execute("SET TimeZone = 'UTC'")
    return database


@contextmanager
def idle(database: duckdb.DuckDBPyConnection) -> Generator[None]:
    """Keeps most of the database in its folder while it is not asked."""
    database.execute(f"SET memory_limit = '{IDLE_LIMIT}'")
    yield
    database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")


def load_rows(store: Store, shards: Sequence[Shard], workdir: Path, kept: Sequence[Path] = ()) -> Rows:
    """Every row of every shard; ``kept`` has the files with those of the first generations, whose shards are not read.

    ``parts`` is null for plain samples. ``shard`` is the shard's number and ``generation`` its release's; ``position``
    counts rows shard by shard.

    Raises:
        StageError: the tables of a shard do not belong together.
    """
    database = open_database(workdir / "spill")
    database.register("nothing", _STORED.empty_table())
    database.execute("CREATE TABLE samples AS SELECT * FROM nothing")
    database.unregister("nothing")
    signatures = SignatureFiles(workdir / "signatures")
    of_shard = np.array([shard.generation for shard in shards], np.int32)
    # Releases of the first version listed shards by name; what follows needs them in order.
    generation = np.maximum.accumulate(of_shard)
    num_generations = int(generation.max(initial=-1)) + 1
    stated: list[_Stated] = [{} for _ in range(num_generations)]
    sizes = np.zeros(len(shards), np.int64)
    num_rows = 0
    for number, path in enumerate(kept):
        for table in _combined(_kept_batches(path, of_shard, stated[number], sizes), INSERT_ROWS):
            num_rows = _insert(database, table, num_rows)
    first = int((generation < len(kept)).sum())
    with signatures.writer() as writer:
        for table in _combined(
            _batches(store, shards, generation, first, workdir / "fetched", stated, sizes), INSERT_ROWS
        ):
            writer.append(table, num_rows)
            num_rows = _insert(database, table.drop_columns(list(SIGNATURE_COLUMNS)), num_rows)
    # What was read of the shards is freed, and Arrow would keep its memory for more.
    pa.default_memory_pool().release_unused()
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return Rows(
        database=database,
        starts=starts,
        signatures=signatures,
        generations=starts[np.searchsorted(generation, np.arange(num_generations + 1))],
        num_kept=len(kept),
        stated=[[entries[key] for key in sorted(entries)] for entries in stated],
    )


_Stated: TypeAlias = dict[tuple[tuple[str, str], ...], Mapping[str, str]]


def _insert(database: duckdb.DuckDBPyConnection, table: pa.Table, first: int) -> int:
    """Adds rows from position ``first`` on and returns the position after them."""
    positions = pa.array(np.arange(first, first + table.num_rows, dtype=np.int64))
    database.register("batch", table.add_column(0, "position", positions))
    database.execute("INSERT INTO samples BY NAME SELECT * FROM batch")
    database.unregister("batch")
    return first + table.num_rows


def _kept_batches(
    path: Path, generation: npt.NDArray[np.int32], stated: _Stated, sizes: npt.NDArray[np.int64]
) -> Iterator[pa.Table]:
    """Rows of one generation as its release kept them; fills ``stated``, and ``sizes`` by shard."""
    with pq.ParquetFile(path) as file:
        for entry in json.loads(file.schema_arrow.metadata[STATED]):
            stated[tuple(sorted(entry.items()))] = entry
        present = [name for name in KEPT_ROWS.names if name in set(file.schema_arrow.names)]
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=present, use_threads=False):
            table = _fitted(pa.Table.from_batches([batch]), KEPT_ROWS)
            shard = table["shard"].to_numpy()
            sizes += np.bincount(shard, minlength=len(sizes))
            yield table.append_column("generation", pa.array(generation[shard]))


def write_kept_rows(rows: Rows, generation: int, path: Path) -> int:
    """Writes the rows of one generation for the releases that descend from this one; returns their number."""
    schema = KEPT_ROWS.with_metadata({STATED: canonical_json(list(rows.stated[generation]))})
    first, end = rows.generations[generation : generation + 2].tolist()
    columns = ", ".join(f'"{name}"' for name in KEPT_ROWS.names)
    found = rows.database.sql(f"SELECT {columns} FROM samples WHERE position >= {first} AND position < {end}")
    return write_batches(found.to_arrow_reader(ROW_GROUP_ROWS), schema, path)


def _combined(tables: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at least ``num_rows``."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        if sum(part.num_rows for part in pending) >= num_rows:
            yield pa.concat_tables(pending)
            pending = []
    if pending:
        yield pa.concat_tables(pending)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Files:
    """The tables of one shard as local files."""

    samples: Path
    signals: Path
    embeddings: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """The rows of one shard, and what its table of signals states about itself."""

    tables: Iterable[pa.Table]
    stated: Mapping[str, str]


def _read(store: Store, number: int, shard: Shard, folder: Path) -> _Read:
    """Fetches a shard, and reads a small one at once: a large one is read while its rows are used."""
    files = _Files(
        samples=store.fetch(shard.samples, folder),
        signals=store.fetch(shard.signals, folder),
        embeddings=store.fetch(shard.embedding_signals, folder),
    )
    about = pq.read_metadata(files.signals)
    metadata = sorted((about.metadata or {}).items())
    stated = {name.decode(): value.decode() for name, value in metadata if b"." in name}
    tables = _shard_batches(number, shard, files)
    return _Read(tables=list(tables) if about.num_rows <= BATCH_ROWS else tables, stated=stated)


def _batches(
    store: Store,
    shards: Sequence[Shard],
    generation: npt.NDArray[np.int32],
    first: int,
    folder: Path,
    stated: Sequence[_Stated],
    sizes: npt.NDArray[np.int64],
) -> Iterator[pa.Table]:
    """Rows of shards from ``first`` on, while the next are fetched; fills ``stated``, and ``sizes`` by shard."""
    waiting: list[Future[_Read]] = []
    with ThreadPoolExecutor(AHEAD) as pool:
        for number in range(first, len(shards)):
            for ahead in range(number + len(waiting), min(number + AHEAD, len(shards))):
                waiting.append(pool.submit(_read, store, ahead, shards[ahead], folder / str(ahead)))
            read = waiting.pop(0).result()
            stated[generation[number]][tuple(read.stated.items())] = read.stated
            for table in read.tables:
                sizes[number] += table.num_rows
                yield table
            shutil.rmtree(folder / str(number))


def _shard_batches(number: int, shard: Shard, files: _Files) -> Iterator[pa.Table]:
    """The rows of one shard that has signals for them; signals and embeddings of a shard have the same samples."""
    origin, embeddings = read_columns(files.samples, ORIGIN), read_columns(files.embeddings, EMBEDDING_SIGNALS)
    ids = read_columns(files.signals, pa.schema([ORIGIN.field("id")]))["id"]
    places = [_places(ids, table["id"]) for table in (origin, embeddings)]
    joined = len(ids) - sum(place.null_count for place in places if place is not None)
    if not joined == len(ids) == embeddings.num_rows:
        raise StageError(
            f"shard {number}: its tables do not belong together: expected {len(ids)} samples in each of "
            f"snapshot, features and embeddings, got {joined} in all and {embeddings.num_rows} in embeddings. "
            "Materialize the shard again."
        )
    start = 0
    for signals in _signal_batches(files.signals):
        count = signals.num_rows
        parts = {name: signals[name] for name in signals.column_names}
        for table, place in ((origin, places[0]), (embeddings, places[1])):
            part = table.slice(start, count) if place is None else table.take(place.slice(start, count))
            parts |= {name: part[name] for name in table.column_names if name != "id"}
        parts["generation"] = pa.array(np.full(count, shard.generation, np.int32))
        parts["shard"] = pa.array(np.full(count, number, np.int32))
        parts["row"] = pa.array(np.arange(start, start + count, dtype=np.int32))
        yield pa.table(parts)
        start += count


def _places(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Where every id is among ``known``, null where it is not; None where both are the same."""
    return None if ids.equals(known) else pc.index_in(ids, known.combine_chunks())  # pyright: ignore[reportAttributeAccessIssue]


def _signal_batches(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        known = set(file.schema_arrow.names)
        present = [name for name in _MEASURED.names if name in known]
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=present, use_threads=False):
            yield _fitted(pa.Table.from_batches([batch]), _MEASURED)


def narrow(store: Store, digest: str, schema: pa.Schema, folder: Path) -> pa.Table:
    """The columns of ``schema`` from a stored Parquet file, which older code may have written."""
    path = store.fetch(digest, folder)
    table = read_columns(path, schema)
    path.unlink()
    return table


def read_columns(path: Path, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema`` from a Parquet file; a column it lacks is null, but no sample has what it lacks."""
    present = pq.read_schema(path).names
    names = [name for name in schema.names if name in present]
    return _fitted(pq.read_table(path, columns=names, use_threads=False), schema)


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.array([_ABSENT.get(field.name)] * table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))
