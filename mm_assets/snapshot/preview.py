"""What people look at before they look at files: modality counts, dead letters and a grid of pictures, as Markdown."""

import io
from collections.abc import Iterator, Mapping
from typing import IO, Any

from PIL import Image

from mm_assets.charts import png_markdown
from mm_assets.identity.canonical import CHUNK_BYTES, digest_bytes
from mm_assets.modalities.table import MODALITIES, NAMES, Modality
from mm_assets.scratch import scratch_folder
from mm_assets.store.client import translated
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store, object_key
from mm_assets.store.tables import read_parquet

COLUMNS, ROWS, TILE = 8, 3, 64
#: A preview reads the beginning of the tar.
MAX_TAR_BYTES = 32 << 20
MAX_PNG_BYTES = 60_000


def preview(store: Store, manifest: Manifest) -> str:
    """Markdown about one shard; pictures that do not decode are left out, ``features`` says why."""
    with scratch_folder("preview") as folder:
        pictured = [row.name for row in MODALITIES.values() if row.is_pictured]
        columns = [f"{name}_{column}" for name in pictured for column in ("offset", "size_bytes", "digest")]
        table = read_parquet(store.fetch(manifest.output("samples.parquet").digest, folder), columns)
    parts = [_counts(manifest.stats)]
    for modality in (row for row in MODALITIES.values() if row.is_pictured):
        rows = table.filter(table.column(f"{modality.name}_digest").is_valid()).to_pylist()
        pictures = list(_pictures(store, manifest, modality, _chosen(rows, modality.name)))
        if pictures:
            parts.append(png_markdown(_grid(pictures), f"{len(pictures)} pictures of the shard"))
    return "\n\n".join(parts) + "\n"


def _counts(stats: Mapping[str, Any]) -> str:
    cells = {"samples": stats["rows_out"], **{name: stats["modalities"][name] for name in NAMES}}
    cells["dead letters"] = stats["dead_letters"]
    lines = [_line(cells), _line(dict.fromkeys(cells, "---"), values=True), _line(cells, values=True)]
    reasons = [f"- {count} dead letters: {reason}" for reason, count in stats["reasons"].items()]
    return "\n".join([*lines, "", *reasons]).rstrip()


def _line(cells: Mapping[str, object], *, values: bool = False) -> str:
    return "| " + " | ".join(str(cell) for cell in (cells.values() if values else cells)) + " |"


def _chosen(rows: list[dict[str, Any]], modality: str) -> list[dict[str, Any]]:
    """A grid's worth of different pictures, evenly spread over what a preview reads of the tar, in its order."""
    first: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row[f"{modality}_offset"]):
        if row[f"{modality}_offset"] + row[f"{modality}_size_bytes"] <= MAX_TAR_BYTES:
            first.setdefault(row[f"{modality}_digest"], row)
    different = list(first.values())
    number = min(COLUMNS * ROWS, len(different))
    return [different[index * len(different) // number] for index in range(number)]


def _pictures(
    store: Store, manifest: Manifest, modality: Modality, rows: list[dict[str, Any]]
) -> Iterator[Image.Image]:
    """The pictures of ``rows``, which are in the order of the tar, each verified by its own digest."""
    digest = manifest.output("samples.tar").digest
    place = 0
    with store.open_key(object_key(digest)) as body, translated(store.object_uri(digest)):
        for row in rows:
            _skip(body, row[f"{modality.name}_offset"] - place)
            data = _read(body, row[f"{modality.name}_size_bytes"])
            place = row[f"{modality.name}_offset"] + row[f"{modality.name}_size_bytes"]
            tile = (
                modality.aspect("preview").tile(data, TILE)
                if digest_bytes(data) == row[f"{modality.name}_digest"]
                else None
            )
            if tile is not None:
                yield tile


def _skip(body: IO[bytes], num_bytes: int) -> None:
    while num_bytes > 0:
        chunk = body.read(min(num_bytes, CHUNK_BYTES))
        if not chunk:
            return
        num_bytes -= len(chunk)


def _read(body: IO[bytes], num_bytes: int) -> bytes:
    chunks: list[bytes] = []
    while num_bytes > 0 and (chunk := body.read(num_bytes)):
        chunks.append(chunk)
        num_bytes -= len(chunk)
    return b"".join(chunks)


def _grid(tiles: list[Image.Image]) -> bytes:
    rows = -(-len(tiles) // COLUMNS)
    grid = Image.new("RGB", (min(len(tiles), COLUMNS) * TILE, rows * TILE), "white")
    for number, tile in enumerate(tiles):
        grid.paste(tile, (number % COLUMNS * TILE, number // COLUMNS * TILE))
    # Fewer colours until it fits: photographs need it, icons do not.
    for colors in (256, 64, 16, 4):
        file = io.BytesIO()
        grid.quantize(colors).save(file, "PNG", optimize=True)
        if file.tell() <= MAX_PNG_BYTES:
            break
    return file.getvalue()
