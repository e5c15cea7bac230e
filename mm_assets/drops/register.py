"""Registering data that are in S3 already: hashed in place, recorded by URI, and read from there.

Nothing is copied but ``drop.json`` and the description of the source. ``drop.json`` is written last, by one conditional
write, and only if the data hold samples.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mm_assets.drops.check import DropReport, examine_drop, source_problems
from mm_assets.drops.contents import Contents, find_contents
from mm_assets.drops.create import put_source, require_names, require_small, taken_error
from mm_assets.drops.first_reading import FirstReading
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import DESCRIPTIVE_FILES, SOURCE_FILE, Drop, drop_key, is_tar, source_key, validated
from mm_assets.drops.source import parse_source, source_template
from mm_assets.errors import DropError, UsageError
from mm_assets.scratch import scratch_folder
from mm_assets.store.objects import Store


def register_drop(
    store: Store,
    uri: str,
    source: str,
    drop: str,
    *,
    index: str | None = None,
    description: Path | None = None,
    on_object: Callable[[], None] = lambda: None,
) -> DropReport:
    """Records what lies at ``uri`` as a drop; an unusable one is reported and not recorded.

    Args:
        store: Whose credentials may read the data; their bucket may be another one.
        uri: ``s3://bucket/prefix`` of tars, or of an index and its files; or of one tar or index.
        source: Name of the source system.
        drop: Name of this delivery.
        index: The index below the prefix, if it has none of the known names.
        description: A ``source.yaml``; default: the one in the store, else one that declares nothing.
        on_object: Called after each object, for a progress bar.

    Raises:
        DropError: there are no tars and no index, or the store has another drop or source of that name.
        UsageError: ``uri`` is not an S3 URI, or a name is not valid.
    """
    require_names(source, drop)
    _require_uri(uri)
    described = _description(store, source, description)
    reading = FirstReading(store, on_object)
    with scratch_folder("drop") as scratch:
        base, contents, path = _contents(store, reading, uri, index, scratch)
        objects = reading.look_up({base + name for name in contents.names} | contents.uris)
        with validated(uri, "Correct what it is made from"):
            made = Drop(
                schema="mm.drop/1",
                source=source,
                drop=drop,
                captured_from=None,
                captured_to=None,
                format=contents.format,
                objects=objects,
                annotation=dict(parse_source(described, SOURCE_FILE).annotation),
                columns=dict(contents.columns),
                index_file=None if contents.index is None else base + contents.index,
                media_folder=contents.media_folder,
            )
        problems, warnings = source_problems(described, SOURCE_FILE, made)
        report = examine_drop(
            made,
            reading.open,
            path,
            config=SnapshotConfig(),
            is_hashed=True,
            problems=problems,
            warnings=warnings,
        )
    if not any(problem.is_fatal for problem in report.problems):
        whole = made.model_copy(update={"objects": reading.describe(made.objects)})
        _record(store, whole, described, uri)
    return report


def _require_uri(uri: str) -> None:
    if not uri.startswith("s3://") or not uri.removeprefix("s3://").partition("/")[0]:
        raise UsageError(f"{uri}: is not an S3 URI: expected s3://BUCKET/PREFIX.")


def _description(store: Store, source: str, description: Path | None) -> bytes:
    known = store.read_key(source_key(source))
    if description is not None:
        if not description.is_file():
            raise UsageError(f"{description}: does not exist. Name a file like the source.yaml of `mm drop create`.")
        data = description.read_bytes()
        described = parse_source(data, str(description))
        if described.source != source:
            raise DropError(f"{description}: describes another source: expected {source}, got {described.source}.")
        return data
    return source_template(source) if known is None else known.data


def _contents(
    store: Store, reading: FirstReading, uri: str, index: str | None, scratch: Path
) -> tuple[str, Contents, Path | None]:
    """What its names are relative to, what it consists of, and a copy of its index."""
    found = list(store.list_uris(uri))
    if not found:
        raise DropError(f"{uri}: holds no objects. Check the bucket and the prefix.")
    base = uri.rstrip("/") + "/"
    if uri in found:
        base = uri.rpartition("/")[0] + "/"
        if is_tar(uri):
            found = [uri]
        else:
            # The files that an index names lie beside it.
            found, index = list(store.list_uris(base)), uri.removeprefix(base)
    names = [name for name in (entry.removeprefix(base) for entry in found) if _is_data(name)]
    paths: dict[str, Path] = {}

    def path_of(name: str) -> Path:
        paths[name] = scratch / f"index{PurePosixPath(name).suffix}"
        entries = reading.look_up([base + name])
        if not entries:
            raise DropError(f"{base + name}: is gone. Register the data when nobody writes to them.")
        reader = reading.open(entries[0])
        with paths[name].open("wb") as file:
            while chunk := reader.read():
                file.write(chunk)
        reader.finish()
        return paths[name]

    contents = find_contents(names, path_of, uri, index)
    if contents is None:
        raise DropError(
            f"{uri}: holds no data: expected tars, or an index that names files (index.jsonl, metadata.csv or the one "
            f"given by --index), got {len(names)} other objects."
        )
    return base, contents, paths.get(contents.index or "")


def _is_data(name: str) -> bool:
    """Whether an object is part of a delivery; hidden ones and the markers of folders are not."""
    parts = PurePosixPath(name).parts
    return not name.endswith("/") and name not in DESCRIPTIVE_FILES and not any(part.startswith(".") for part in parts)


def _record(store: Store, made: Drop, described: bytes, uri: str) -> None:
    data = made.encode()
    require_small(data, uri)
    put_source(store, described, made.source, SOURCE_FILE)
    key = drop_key(made.source, made.drop)
    if not store.create_key(key, data):
        raise taken_error(store.uri(key), made)
