"""What people look at before they look at files: modality counts, dead letters and a grid of pictures, as Markdown."""

import io
from collections.abc import Iterator, Mapping
from typing import IO, Any

from PIL import Image

from mm_assets.charts import png_markdown
from mm_assets.identity.canonical import CHUNK_BYTES, digest_bytes
from mm_assets.modalities.table import MODALITIES, NAMES, Modality
from mm_assets.scratch import scratch_folder
from mm_assets.snapshot.blobs import BlobRef, blob_columns, blobs_of
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
        path = store.fetch(manifest.output("samples.parquet").digest, folder)
        rows = read_parquet(path, ["id", *blob_columns(path)]).to_pylist()
    blobs = [blob for row in rows for blob in blobs_of(row)]
    parts = [_counts(manifest.stats)]
    for modality in (row for row in MODALITIES.values() if row.is_pictured):
        pictures = list(_pictures(store, manifest, modality, _chosen(blobs, modality.name)))
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


def _chosen(blobs: list[BlobRef], modality: str) -> list[BlobRef]:
    """A grid's worth of different pictures, evenly spread over what a preview reads of the tar, in its order."""
    first: dict[str, BlobRef] = {}
    for blob in sorted((blob for blob in blobs if blob.modality == modality), key=lambda blob: blob.offset):
        if blob.offset + blob.size_bytes <= MAX_TAR_BYTES:
            first.setdefault(blob.digest, blob)
    different = list(first.values())
    number = min(COLUMNS * ROWS, len(different))
    return [different[index * len(different) // number] for index in range(number)]


def _pictures(store: Store, manifest: Manifest, modality: Modality, blobs: list[BlobRef]) -> Iterator[Image.Image]:
    """The pictures of ``blobs``, which are in the order of the tar, each verified by its own digest."""
    digest = manifest.output("samples.tar").digest
    place = 0
    with store.open_key(object_key(digest)) as body, translated(store.object_uri(digest)):
        for blob in blobs:
            _skip(body, blob.offset - place)
            data = _read(body, blob.size_bytes)
            place = blob.offset + blob.size_bytes
            is_sound = digest_bytes(data) == blob.digest
            tile = modality.aspect("preview").tile(data, TILE) if is_sound else None
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
