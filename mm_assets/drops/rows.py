"""Turns rows of an index and the loose files they name into samples; several files are on their way at a time."""

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from mm_assets.drops.blobs import inspect_blob
from mm_assets.drops.collection import Collection
from mm_assets.drops.columns import FILE_MODALITIES, URI_SCHEME
from mm_assets.drops.fields import finish_sample, printable
from mm_assets.drops.index import Row
from mm_assets.drops.record import Drop, DropObject, is_safe_path
from mm_assets.drops.samples import Blob, Rejection, Sample, VerifiedReader
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITIES, NAMES, any_of

OpenObject = Callable[[DropObject], VerifiedReader]
#: What was asked for of a row, by modality: the bytes of a file, or why it is not read.
Wanted = Mapping[str, "Future[bytes | Refusal]"]

FETCH_THREADS = 8
#: Rows and bytes of files that are read ahead of the row that is next.
AHEAD_ROWS = 32
AHEAD_BYTES = 64 << 20


def read_rows(
    rows: Iterable[Row], drop: Drop, open_object: OpenObject, found: Collection, *, repeated: Container[int]
) -> None:
    """Adds the samples of ``rows`` to ``found``, in the order of the rows whichever file arrives first.

    Args:
        rows: Those to read.
        drop: Their drop, which declares the loose files.
        open_object: Opens one of them; called in several threads.
        found: Where samples and rejections go.
        repeated: Numbers of rows whose id an earlier row of the index has.

    Raises:
        ObjectMissingError: a declared file does not exist. ObjectCorruptError: it has other bytes.
    """
    found.begin(drop, drop.index.name)
    reader = _RowReader(drop, open_object, found)
    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        try:
            for row, wanted in _ahead(pool, reader, rows):
                is_first = row.number not in repeated
                made = reader.read(row, wanted) if is_first else reader.reject(row, _again(row))
                if isinstance(made, Sample):
                    found.add_sample(made)
                else:
                    found.add_rejection(made)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _ahead(pool: ThreadPoolExecutor, reader: "_RowReader", rows: Iterable[Row]) -> Iterator[tuple[Row, Wanted]]:
    """The rows in order, each with its files, which are read while earlier rows are worked on."""
    waiting: deque[tuple[Row, Wanted, int]] = deque()
    held_bytes = 0
    for row in rows:
        files = reader.files(row)
        size_bytes = sum(entry.size_bytes for entry in files.values()) + _cell_bytes(row)
        while waiting and (len(waiting) >= AHEAD_ROWS or held_bytes + size_bytes > AHEAD_BYTES):
            earlier, wanted, taken_bytes = waiting.popleft()
            held_bytes -= taken_bytes
            yield earlier, wanted
        held_bytes += size_bytes
        futures = {modality: pool.submit(reader.fetch, modality, entry) for modality, entry in files.items()}
        waiting.append((row, futures, size_bytes))
    yield from ((row, wanted) for row, wanted, _ in waiting)


def _cell_bytes(row: Row) -> int:
    """Of the media that are in the row itself."""
    cells = [] if isinstance(row.columns, Refusal) else row.columns.values()
    values = (cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells)
    return sum(len(value) for value in values if isinstance(value, bytes))


def _again(row: Row) -> Refusal:
    assert not isinstance(row.columns, Refusal)
    return Refusal("duplicate_id", f"id {row.columns['id']} occurs in an earlier row already")


class _RowReader:
    """Reads single rows of one drop."""

    def __init__(self, drop: Drop, open_object: OpenObject, found: Collection) -> None:
        self._drop = drop
        self._index = drop.index.name
        self._objects = {entry.name: entry for entry in drop.objects if entry.name != self._index}
        self._open = open_object
        self._config = found.config
        self._blobs = found.blobs

    def files(self, row: Row) -> dict[str, DropObject]:
        """The declared files that the row names, by modality."""
        if isinstance(row.columns, Refusal):
            return {}
        named = {name: row.columns.get(name) for name in FILE_MODALITIES}
        found = {name: self._declared(value) for name, value in named.items() if isinstance(value, str)}
        return {name: entry for name, entry in found.items() if entry is not None}

    def fetch(self, modality: str, entry: DropObject) -> bytes | Refusal:
        """The verified bytes of a file; one that is too large is verified and not kept."""
        reader = self._open(entry)
        ceiling = self._config.max_bytes(modality)
        if entry.size_bytes > ceiling:
            reader.finish()
            return Refusal("too_large", f"{modality} {entry.name} has {entry.size_bytes} bytes; {ceiling} are allowed")
        chunks: list[bytes] = []
        while chunk := reader.read():
            chunks.append(chunk)
        reader.finish()
        return b"".join(chunks)

    def read(self, row: Row, wanted: Wanted) -> Sample | Rejection:
        """The sample of one row, or why there is none."""
        if isinstance(row.columns, Refusal):
            return self.reject(row, row.columns)
        blobs: dict[str, Blob] = {}
        for modality, kind in MODALITIES.items():
            value = row.columns.get(modality)
            # An empty string is how many exports spell "none": it is neither a file name nor a text.
            if value is None or value == "":
                continue
            file: str | None = None
            if isinstance(value, bytes):
                made = self._keep(modality, value)
            elif kind.is_inline:
                made = self._read_inline(modality, value)
            else:
                file = value
                made = self._read_file(modality, value, wanted)
            if isinstance(made, Refusal):
                return self.reject(row, made, modality=modality, file=file)
            blobs[modality] = made
        if not blobs:
            return self.reject(row, _nothing(row.columns))
        columns = {name: value for name, value in row.columns.items() if name not in ("id", *NAMES)}
        return finish_sample(row.columns["id"], self._index, blobs, columns, self._config, line=row.line)

    def reject(self, row: Row, refusal: Refusal, *, modality: str | None = None, file: str | None = None) -> Rejection:
        """The rejection of one row, which names the loose file at fault if there is one."""
        declared = self._declared(file) if file else None
        return Rejection(
            reason=refusal.reason,
            detail=refusal.detail,
            object=declared.name if declared else self._index,
            key=None if isinstance(row.columns, Refusal) else printable(row.columns["id"]),
            line=row.line,
            modality=modality,
            digest=declared.digest if declared else None,
            size_bytes=declared.size_bytes if declared else None,
        )

    def _declared(self, value: str) -> DropObject | None:
        return self._objects.get(self._drop.file_name(value))

    def _read_inline(self, modality: str, text: str) -> Blob | Refusal:
        try:
            # `mm drop create` keeps bytes of a loose text that are not UTF-8 as lone surrogates; this restores them.
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            return Refusal("text_not_utf8", f"{modality} is not Unicode text: {error.reason}")
        return self._keep(modality, data)

    def _read_file(self, modality: str, name: str, wanted: Wanted) -> Blob | Refusal:
        if modality in wanted:
            data = wanted[modality].result()
            return data if isinstance(data, Refusal) else self._keep(modality, data)
        if self._drop.file_name(name) == self._index:
            return Refusal("bad_row", f"{modality} {name!r} is the index itself; a file of that modality is expected")
        if not name.startswith(URI_SCHEME) and not is_safe_path(name.removeprefix("./")):
            return Refusal("unsafe_path", f"{modality} {name!r} is not a file inside the drop")
        return Refusal("missing_file", f"{modality} {name!r} is not in the drop")

    def _keep(self, modality: str, data: bytes) -> Blob | Refusal:
        found = inspect_blob(modality, data, self._config)
        if isinstance(found, Refusal):
            return found
        return Blob(offset=self._blobs.append(data), size_bytes=len(data), digest=digest_bytes(data), format=found)


def _nothing(columns: Mapping[str, object]) -> Refusal:
    for modality, kind in MODALITIES.items():
        if kind.is_inline and columns.get(modality) == "":
            return Refusal("empty_file", f"sample has only an empty {modality}")
    return Refusal("no_modality", f"sample has no {any_of()}")
