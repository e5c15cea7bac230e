"""The narrow columns of a release's samples as one DuckDB table: identities, labels and signals, never payloads.

Shards are loaded one at a time into a database file in the working folder, so memory does not grow with the number
of shards. One thread and a total order make every answer independent of the machine.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.drops.labels import LABEL_FIELDS
from mm_assets.errors import StageError
from mm_assets.features.schema import EMBEDDING_SIGNALS, MEASURED_PARTS_FIELD, SIGNALS
from mm_assets.release.shards import Shard
from mm_assets.store.objects import Store

ORIGIN = pa.schema(
    [*((name, pa.string()) for name in ("id", "source", "drop", "label", "language", "group")), *LABEL_FIELDS]
)

#: What a curation policy may name: every signal, and where a sample comes from.
POLICY_SCHEMA = pa.schema([*ORIGIN, *(field for field in (*SIGNALS, *EMBEDDING_SIGNALS) if field.name != "id")])


def open_database(path: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB file that uses one thread and reaches nothing outside itself."""
    database = duckdb.connect(str(path))
    database.execute("SET threads = 1")
    database.execute(f"SET temp_directory = '{str(path.with_suffix('.spill')).replace(chr(39), chr(39) * 2)}'")
    database.execute("SET enable_external_access = false")
    # A policy may name times of day, which are the same everywhere.
    database.execute("SET TimeZone = 'UTC'")
    return database


def load_rows(store: Store, shards: Sequence[Shard], workdir: Path) -> duckdb.DuckDBPyConnection:
    """A database whose table ``samples`` has every row of every shard, and more columns of order.

    ``parts`` is null for plain samples. ``shard`` is the shard's number and ``generation`` its release's. ``position``
    counts rows in the order of (id, generation, shard, row), which is the order of ``samples.parquet``; ``seniority``
    counts them in the order of (generation, id, shard, row), which decides who is the original among duplicates.
    Neither depends on a name.

    Raises:
        StageError: the tables of a shard do not belong together.
    """
    database = open_database(workdir / "rows.duckdb")
    _create_staging(database)
    for number, shard in enumerate(shards):
        _load_shard(store, number, shard, database, workdir / "fetched")
    database.execute(
        """CREATE TABLE samples AS SELECT *,
           row_number() OVER (ORDER BY id, generation, shard, row) - 1 AS position,
           row_number() OVER (ORDER BY generation, id, shard, row) - 1 AS seniority FROM staged ORDER BY position"""
    )
    database.execute("DROP TABLE staged")
    return database


def _create_staging(database: duckdb.DuckDBPyConnection) -> None:
    place = [pa.field(name, pa.int32()) for name in ("generation", "shard", "row")]
    schema = pa.schema([*place, *POLICY_SCHEMA, MEASURED_PARTS_FIELD])
    database.register("empty", schema.empty_table())
    database.execute("CREATE TABLE staged AS SELECT * FROM empty")
    database.unregister("empty")


def _load_shard(store: Store, number: int, shard: Shard, database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    signals = narrow(store, shard.signals, SIGNALS.append(MEASURED_PARTS_FIELD), folder)
    signals = signals.append_column("row", pa.array(range(signals.num_rows), pa.int32()))
    embeddings = narrow(store, shard.embedding_signals, EMBEDDING_SIGNALS, folder)
    database.register("shard_signals", signals)
    database.register("shard_origin", narrow(store, shard.samples, ORIGIN, folder))
    database.register("shard_embeddings", embeddings)
    before = _count(database)
    database.execute(
        """INSERT INTO staged BY NAME SELECT ? AS generation, ? AS shard, f.*, s.* EXCLUDE (id), e.* EXCLUDE (id)
           FROM shard_signals f JOIN shard_origin s USING (id) JOIN shard_embeddings e USING (id)""",
        [shard.generation, number],
    )
    joined = _count(database) - before
    for name in ("shard_signals", "shard_origin", "shard_embeddings"):
        database.unregister(name)
    if not joined == signals.num_rows == embeddings.num_rows:
        raise StageError(
            f"shard {number}: its tables do not belong together: expected {signals.num_rows} samples in each of "
            f"snapshot, features and embeddings, got {joined} in all and {embeddings.num_rows} in embeddings. "
            "Materialize the shard again."
        )


def _count(database: duckdb.DuckDBPyConnection) -> int:
    return database.execute("SELECT count(*) FROM staged").fetchall()[0][0]


def narrow(store: Store, digest: str, schema: pa.Schema, folder: Path) -> pa.Table:
    """The columns of ``schema`` from a stored Parquet file; a column it lacks (older code wrote it) is null."""
    path = store.fetch(digest, folder)
    present = pq.read_schema(path).names
    table = pq.read_table(path, columns=[name for name in schema.names if name in present], use_threads=False)
    path.unlink()
    columns = [
        table[field.name].cast(field.type) if field.name in present else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))
