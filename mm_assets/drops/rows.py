"""Turns rows of an index and the loose files they name into samples, one file in memory at a time."""

from collections.abc import Callable, Iterable, Mapping

from mm_assets.drops.blobs import inspect_blob
from mm_assets.drops.fields import finish_sample, printable
from mm_assets.drops.index import Row
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import Drop, DropObject, is_safe_path
from mm_assets.drops.samples import Blob, Contents, Rejection, Sample, Spool, VerifiedReader
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITIES, NAMES, any_of

OpenObject = Callable[[DropObject], VerifiedReader]


def read_rows(
    rows: Iterable[Row],
    drop: Drop,
    open_object: OpenObject,
    config: SnapshotConfig,
    spool: Spool,
    *,
    is_wanted: Callable[[int], bool] = lambda number: True,
) -> Contents:
    """The samples of the wanted rows. Ids are compared over all rows, so every shard agrees on which one is first.

    Args:
        rows: All rows of the index.
        drop: Its drop, which declares the loose files.
        open_object: Opens one of them.
        config: The ceilings.
        spool: Where accepted bytes go.
        is_wanted: Which row numbers to read.

    Raises:
        ObjectMissingError: a declared file does not exist. ObjectCorruptError: it has other bytes.
    """
    reader = _RowReader(drop, open_object, config, spool)
    contents = Contents()
    seen: set[str] = set()
    for row in rows:
        is_first = True
        if not isinstance(row.columns, Refusal):
            key = row.columns["id"]
            is_first = key not in seen
            seen.add(key)
        if not is_wanted(row.number):
            continue
        made = reader.read(row) if is_first else reader.reject(row, Refusal("duplicate_id", _again(row)))
        if isinstance(made, Sample):
            contents.samples.append(made)
        else:
            contents.rejections.append(made)
    return contents


def _again(row: Row) -> str:
    assert not isinstance(row.columns, Refusal)
    return f"id {row.columns['id']} occurs in an earlier row already"


class _RowReader:
    """Reads single rows of one drop."""

    def __init__(self, drop: Drop, open_object: OpenObject, config: SnapshotConfig, spool: Spool) -> None:
        self._index = drop.index.key
        self._objects = {entry.key: entry for entry in drop.objects}
        self._open = open_object
        self._config = config
        self._spool = spool

    def read(self, row: Row) -> Sample | Rejection:
        """The sample of one row, or why there is none."""
        if isinstance(row.columns, Refusal):
            return self.reject(row, row.columns)
        blobs: dict[str, Blob] = {}
        for modality, kind in MODALITIES.items():
            value = row.columns.get(modality)
            # An empty string is how many exports spell "none": it is neither a file name nor a text.
            if not value:
                continue
            made = self._read_inline(modality, value) if kind.is_inline else self._read_file(modality, value)
            if isinstance(made, Refusal):
                return self.reject(row, made, modality=modality, file=None if kind.is_inline else value)
            blobs[modality] = made
        if not blobs:
            return self.reject(row, _nothing(row.columns))
        columns = {name: value for name, value in row.columns.items() if name not in ("id", *NAMES)}
        return finish_sample(row.columns["id"], self._index, blobs, columns, self._config, line=row.line)

    def reject(self, row: Row, refusal: Refusal, *, modality: str | None = None, file: str | None = None) -> Rejection:
        """The rejection of one row, which names the loose file at fault if there is one."""
        declared = self._objects.get(file or "")
        return Rejection(
            reason=refusal.reason,
            detail=refusal.detail,
            object=declared.key if declared else self._index,
            key=None if isinstance(row.columns, Refusal) else printable(row.columns["id"]),
            line=row.line,
            modality=modality,
            digest=declared.digest if declared else None,
            size_bytes=declared.size_bytes if declared else None,
        )

    def _read_inline(self, modality: str, text: str) -> Blob | Refusal:
        try:
            # `mm drop create` keeps bytes of a loose text that are not UTF-8 as lone surrogates; this restores them.
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            return Refusal("text_not_utf8", f"{modality} is not Unicode text: {error.reason}")
        return self._keep(modality, data)

    def _read_file(self, modality: str, name: str) -> Blob | Refusal:
        declared = self._objects.get(name.removeprefix("./"))
        if declared is None:
            if not is_safe_path(name.removeprefix("./")):
                return Refusal("unsafe_path", f"{modality} {name!r} is not a file inside the drop")
            return Refusal("missing_file", f"{modality} {name!r} is not in the drop")
        reader = self._open(declared)
        ceiling = self._config.max_bytes(modality)
        if declared.size_bytes > ceiling:
            reader.finish()
            return Refusal("too_large", f"{modality} {name} has {declared.size_bytes} bytes; {ceiling} are allowed")
        chunks: list[bytes] = []
        while chunk := reader.read():
            chunks.append(chunk)
        reader.finish()
        return self._keep(modality, b"".join(chunks))

    def _keep(self, modality: str, data: bytes) -> Blob | Refusal:
        found = inspect_blob(modality, data, self._config)
        if isinstance(found, Refusal):
            return found
        return Blob(offset=self._spool.append(data), size_bytes=len(data), digest=digest_bytes(data), format=found)


def _nothing(columns: Mapping[str, object]) -> Refusal:
    for modality, kind in MODALITIES.items():
        if kind.is_inline and columns.get(modality) == "":
            return Refusal("empty_file", f"sample has only an empty {modality}")
    return Refusal("no_modality", f"sample has no {any_of()}")
