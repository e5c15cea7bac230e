"""What an evaluation reads of a frozen release: the samples of a split, and columns of other outputs."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mm_assets.identity.canonical import digest_json
from mm_assets.modalities.table import NAMES
from mm_assets.scratch import scratch_folder
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet

ROW_COLUMNS = ["id", "split", "selected", "label", "language", "group", *(f"has_{m}" for m in NAMES)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One sample of the evaluated split.

    ``row`` is its row number in the release's ``samples.parquet``, ``group`` what ``group_key`` gives.
    """

    row: int
    id: str
    label: str | None
    language: str | None
    group: str | None
    modalities: tuple[str, ...]

    @property
    def combination(self) -> str:
        """The modalities present, such as ``text+image``."""
        return "+".join(self.modalities)


def read_columns(store: Store, digest: str, columns: list[str] | None = None) -> pa.Table:
    """Columns of a stored Parquet table, verified."""
    with scratch_folder("read") as folder:
        return read_parquet(store.fetch(digest, folder), columns)


def read_rows(store: Store, samples: str, split: str) -> list[Row]:
    """The selected samples of ``split``, in the release's order (by id); ``samples`` is its ``samples.parquet``."""
    table = read_columns(store, samples, ROW_COLUMNS)
    wanted = table["selected"].to_numpy() & (table["split"].to_numpy() == split)
    numbers = np.flatnonzero(wanted)
    return [
        Row(
            row=int(number),
            id=record["id"],
            label=record["label"],
            language=record["language"],
            group=group_key(record["id"], record["group"]),
            modalities=tuple(m for m in NAMES if record[f"has_{m}"]),
        )
        for number, record in zip(numbers, table.take(pa.array(numbers)).to_pylist(), strict=True)
    ]


def group_key(sample_id: str, group: str | None) -> str | None:
    """A group among those of all sources: each source names its own, and two may use one name."""
    return None if group is None else f"{sample_id.split('/', 1)[0]}/{group}"


def keyed_subset(rows: list[Row], limit: int, *key: str | int) -> list[int]:
    """Indices into ``rows`` of at most ``limit`` samples, ascending.

    The choice goes by a digest of (key, id): a sample's rank among others does not change when data is added.
    """
    if len(rows) <= limit:
        return list(range(len(rows)))
    ranked = sorted(range(len(rows)), key=lambda index: digest_json([*key, rows[index].id]))
    return sorted(ranked[:limit])
