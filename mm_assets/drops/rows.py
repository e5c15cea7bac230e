"""Turns rows of an index and the loose files they name into samples; several files are on their way at a time."""

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakValueDictionary

from mm_assets.drops.blobs import inspect_blob
from mm_assets.drops.collection import Collection
from mm_assets.drops.columns import FILE_MODALITIES, URI_SCHEME
from mm_assets.drops.fields import finish_sample, printable
from mm_assets.drops.index import Row
from mm_assets.drops.parts import CONTENT, Cell, part_names, repeated_place, row_cells, said_of_parts, too_many
from mm_assets.drops.record import Drop, DropObject, is_safe_path
from mm_assets.drops.samples import Blob, Rejection, Sample, VerifiedReader
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITIES, NAMES, any_of

OpenObject = Callable[[DropObject], VerifiedReader]
#: What was asked for of a row, by position of the part: the bytes of a file, or why it is not read.
Wanted = Mapping[int, "Future[bytes | Refusal]"]

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
            for read, wanted in _ahead(pool, reader, rows):
                is_first = read.row.number not in repeated
                made = reader.read(read, wanted) if is_first else reader.reject(read.row, _again(read.row))
                if isinstance(made, Sample):
                    found.add_sample(made)
                else:
                    found.add_rejection(made)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _ahead(pool: ThreadPoolExecutor, reader: "_RowReader", rows: Iterable[Row]) -> Iterator[tuple["_Parts", Wanted]]:
    """The rows in order, each with its files, which are read while earlier rows are worked on.

    A file that the row before names too, or a row that is waiting, is not read again, nor one whose blob is kept.
    """
    waiting: deque[tuple[_Parts, Wanted, int]] = deque()
    held_bytes = 0
    # Of rows that are waiting, and of the last one that is not any more (``wanted``).
    reading: WeakValueDictionary[tuple[str, str], Future[bytes | Refusal]] = WeakValueDictionary()
    for row in rows:
        read = reader.parts(row)
        size_bytes = sum(read.size_bytes)
        while waiting and (len(waiting) >= AHEAD_ROWS or held_bytes + size_bytes > AHEAD_BYTES):
            earlier, wanted, taken_bytes = waiting.popleft()
            held_bytes -= taken_bytes
            yield earlier, wanted
        held_bytes += size_bytes
        futures: dict[int, Future[bytes | Refusal]] = {}
        for place, entry in read.files.items():
            if reader.has_blob(read.key(place)):
                continue
            # What a refusal calls the file is in the key too.
            key = read.names[place], entry.name
            futures[place] = reading.get(key) or pool.submit(reader.fetch, read, place)
            reading[key] = futures[place]
        waiting.append((read, futures, size_bytes))
    yield from ((read, wanted) for read, wanted, _ in waiting)


def _again(row: Row) -> Refusal:
    assert not isinstance(row.columns, Refusal)
    return Refusal("duplicate_id", f"id {row.columns['id']} occurs in an earlier row already")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """A row and its parts in reading order, with what messages call them, or why there are none.

    ``files`` has by position the declared files that the row names; ``size_bytes`` of those, and of bytes in the row.
    """

    row: Row
    cells: list[Cell] | Refusal
    names: list[str]
    files: Mapping[int, DropObject]
    size_bytes: Sequence[int]

    def key(self, place: int) -> "_Key":
        """Of the blob that the file of a part becomes."""
        assert not isinstance(self.cells, Refusal)
        return self.files[place].digest, self.cells[place].modality, self.names[place]


#: Digest, modality, and what messages call the part, which is in its refusal too.
_Key = tuple[str, str, str]


class _RowReader:
    """Reads single rows of one drop."""

    def __init__(self, drop: Drop, open_object: OpenObject, found: Collection) -> None:
        self._drop = drop
        self._index = drop.index.name
        self._objects = {entry.name: entry for entry in drop.objects if entry.name != self._index}
        self._open = open_object
        self._config = found.config
        self._blobs = found.blobs
        self._kept: dict[_Key, Blob | Refusal] = {}

    def parts(self, row: Row) -> _Parts:
        """What a row holds and names."""
        found: list[Cell] | Refusal = (
            row.columns
            if isinstance(row.columns, Refusal)
            else row_cells(row.columns, has_content=CONTENT in self._drop.columns)
        )
        cells = [] if isinstance(found, Refusal) else found
        files = {
            place: entry
            for place, cell in enumerate(cells)
            if cell.modality in FILE_MODALITIES
            and isinstance(cell.value, str)
            and (entry := self._declared(cell.value)) is not None
        }
        sizes = [entry.size_bytes for entry in files.values()]
        sizes += [len(cell.value) for cell in cells if isinstance(cell.value, bytes)]
        ceilings = {"max_parts": self._config.max_sample_parts, "max_bytes": self._config.max_sample_bytes}
        # A file that is too large by itself is the better explanation.
        total = 0 if len(cells) == 1 else sum(sizes)
        refusal = found if isinstance(found, Refusal) else too_many(len(cells), total, **ceilings)
        if refusal is not None:
            return _Parts(row=row, cells=refusal, names=[], files={}, size_bytes=())
        names = part_names([cell.modality for cell in cells])
        return _Parts(row=row, cells=cells, names=names, files=files, size_bytes=sizes)

    def fetch(self, read: _Parts, place: int) -> bytes | Refusal:
        """The verified bytes of the file of one part; one that is too large is verified and not kept."""
        assert not isinstance(read.cells, Refusal)
        entry, name = read.files[place], read.names[place]
        reader = self._open(entry)
        ceiling = self._config.max_bytes(read.cells[place].modality)
        if entry.size_bytes > ceiling:
            reader.finish()
            return Refusal("too_large", f"{name} {entry.name} has {entry.size_bytes} bytes; {ceiling} are allowed")
        chunks: list[bytes] = []
        while chunk := reader.read():
            chunks.append(chunk)
        reader.finish()
        return b"".join(chunks)

    def read(self, read: _Parts, wanted: Wanted) -> Sample | Rejection:
        """The sample of one row, or why there is none."""
        row = read.row
        if isinstance(read.cells, Refusal):
            return self.reject(row, read.cells)
        assert not isinstance(row.columns, Refusal)
        places = [(cell.modality, cell.number) for cell in read.cells]
        repeated = repeated_place(places)
        if repeated is not None:
            cell = read.cells[repeated]
            return self.reject(row, Refusal("ambiguous_modality", f"row has two cells of {cell.modality} at one place"))
        blobs: dict[int, Blob] = {}
        for place in sorted(range(len(places)), key=lambda place: NAMES.index(places[place][0])):
            cell = read.cells[place]
            made = self._read_cell(cell, read.names[place], read.files.get(place), wanted.get(place))
            if isinstance(made, Refusal):
                is_file = isinstance(cell.value, str) and cell.modality in FILE_MODALITIES
                return self.reject(row, made, modality=cell.modality, file=str(cell.value) if is_file else None)
            blobs[place] = made
        if not blobs:
            return self.reject(row, _nothing(row.columns))
        known = {"id", *NAMES, *((CONTENT,) if CONTENT in self._drop.columns else ())}
        columns = {name: value for name, value in row.columns.items() if name not in known}
        if CONTENT in known and (said := said_of_parts(row.columns.get(CONTENT))):
            columns[CONTENT] = said
        parts = [blobs[place] for place in sorted(blobs)]
        return finish_sample(row.columns["id"], self._index, parts, columns, self._config, line=row.line)

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

    def has_blob(self, key: "_Key") -> bool:
        """Whether the blob of a file is kept already."""
        return key in self._kept

    def _read_cell(
        self, cell: Cell, name: str, entry: DropObject | None, file: "Future[bytes | Refusal] | None"
    ) -> Blob | Refusal:
        if isinstance(cell.value, bytes):
            return self._keep((digest_bytes(cell.value), cell.modality, name), cell.value)
        if MODALITIES[cell.modality].is_inline:
            return self._read_inline(cell.modality, cell.value, name)
        if entry is not None:
            key = entry.digest, cell.modality, name
            if file is None:
                return self._kept[key]
            data = file.result()
            return data if isinstance(data, Refusal) else self._keep(key, data)
        if self._drop.file_name(cell.value) == self._index:
            return Refusal("bad_row", f"{name} {cell.value!r} is the index itself; a file of that modality is expected")
        if not cell.value.startswith(URI_SCHEME) and not is_safe_path(cell.value.removeprefix("./")):
            return Refusal("unsafe_path", f"{name} {cell.value!r} is not a file inside the drop")
        return Refusal("missing_file", f"{name} {cell.value!r} is not in the drop")

    def _read_inline(self, modality: str, text: str, name: str) -> Blob | Refusal:
        try:
            # `mm drop create` keeps bytes of a loose text that are not UTF-8 as lone surrogates; this restores them.
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            return Refusal("text_not_utf8", f"{name} is not Unicode text: {error.reason}")
        return self._keep((digest_bytes(data), modality, name), data)

    def _keep(self, key: "_Key", data: bytes) -> Blob | Refusal:
        """The blob of ``data``; one of which many rows may be ranges of time is judged and kept once."""
        if not MODALITIES[key[1]].has_time_ranges:
            return self._spool(key, data)
        if key not in self._kept:
            self._kept[key] = self._spool(key, data)
        return self._kept[key]

    def _spool(self, key: "_Key", data: bytes) -> Blob | Refusal:
        digest, modality, name = key
        found = inspect_blob(modality, data, self._config)
        if isinstance(found, Refusal):
            # What judges a blob does not know which of several it is.
            return found if name == modality else Refusal(found.reason, f"{name}: {found.detail}")
        return Blob(
            modality=modality,
            offset=self._blobs.append(data),
            size_bytes=len(data),
            digest=digest,
            format=found,
        )


def _nothing(columns: Mapping[str, object]) -> Refusal:
    for modality, kind in MODALITIES.items():
        if kind.is_inline and columns.get(modality) == "":
            return Refusal("empty_file", f"sample has only an empty {modality}")
    return Refusal("no_modality", f"sample has no {any_of()}")
