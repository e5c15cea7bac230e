"""Reading manifests and tables of any asset by name: what lineage and explanations are made from.

Outputs are known by file and column name. Tables are read batch by batch; only rows about the wanted sample are kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_assets.errors import UsageError
from mm_assets.identity.canonical import Json
from mm_assets.promotion.chain import read_history, read_production
from mm_assets.promotion.record import STATES
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import list_refs, read_ref

Row: TypeAlias = dict[str, Any]

BATCH_ROWS = 65_536


def current_manifests(store: Store, asset: str) -> list[tuple[str, Manifest]]:
    """Digest and manifest of every current partition of ``asset``, sorted by partition."""
    refs = sorted(list_refs(store, asset), key=lambda ref: ref.partition.path)
    return [(ref.manifest, read_manifest(store, ref.manifest)) for ref in refs]


def current_manifest(store: Store, asset: str, partition: Partition) -> tuple[str, Manifest] | None:
    """Digest and manifest of one partition, or None if it was never materialized."""
    ref = read_ref(store, asset, partition).ref
    return None if ref is None else (ref.manifest, read_manifest(store, ref.manifest))


def known_models(store: Store) -> dict[str, Manifest]:
    """Every model that a release points to now or that the registry ever held, by manifest digest."""
    models = dict(current_manifests(store, "model"))
    for state in STATES:
        for record in read_history(store, state):
            models.setdefault(record.model, read_manifest(store, record.model))
    return dict(sorted(models.items()))


def find_model(store: Store, ref: str) -> tuple[str, Manifest]:
    """The model that ``ref`` names: a release id, a manifest digest or ``production``.

    Raises:
        UsageError: there is no such model.
    """
    if ref == "production":
        record = read_production(store)
        if record is None:
            raise UsageError("production: no model is in production. Promote one first, or name a release.")
        return record.model, read_manifest(store, record.model)
    if not ref.startswith("sha256:"):
        found = current_manifest(store, "model", Partition(release=ref))
        if found is None:
            raise UsageError(f"release {ref}: has no model. List releases with `mm release list`.")
        return found
    manifest = read_manifest(store, ref)
    if manifest.asset == "model":
        return ref, manifest
    digests = [entry.manifest for entry in manifest.inputs_of("model")]
    if len(digests) != 1:
        raise UsageError(f"{ref}: is {manifest.asset} {manifest.partition.path}: expected the manifest of a model.")
    return digests[0], read_manifest(store, digests[0])


def flat(values: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """``{"libraries": {"torch": "2"}}`` as ``{"libraries.torch": "2"}``."""
    found: dict[str, Json] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def rows_about(store: Store, digest: str, sample: str, columns: Sequence[str] | None = None) -> list[Row]:
    """Rows of a Parquet object whose ``id`` is ``sample`` or ends with ``/sample``.

    Args:
        store: Where the object is.
        digest: A table with a column ``id``.
        sample: Full id or bare key.
        columns: Columns to return; all where None.
    """
    found: list[Row] = []
    for batch in _batches(store, digest, columns):
        ids = batch["id"]
        mask = pc.or_(pc.equal(ids, sample), pc.ends_with(ids, pattern=f"/{sample}"))  # pyright: ignore[reportAttributeAccessIssue]
        found.extend(batch.filter(mask.fill_null(False)).to_pylist())
    return [row for row in found if sample in (row["id"], bare_key(row["id"]))]


def ledger_places(store: Store, digest: str, sample_id: str) -> set[tuple[int, int]]:
    """(step, lane) of every ledger row that consumed the sample."""
    places: set[tuple[int, int]] = set()
    for batch in _batches(store, digest, ["step", "lane", "ids"]):
        ids = batch["ids"]
        parents = pc.list_parent_indices(ids)  # pyright: ignore[reportAttributeAccessIssue]
        hits = parents.filter(pc.equal(pc.list_flatten(ids), sample_id))  # pyright: ignore[reportAttributeAccessIssue]
        places.update((row["step"], row["lane"]) for row in batch.take(hits).select(["step", "lane"]).to_pylist())
    return places


def bare_key(sample_id: str) -> str:
    """``<key>`` of ``<source>/<drop>/<key>``."""
    return sample_id.split("/", 2)[-1]


def one_id(sample: str, ids: set[str]) -> str:
    """The only sample that ``sample`` names; a full id wins over bare keys.

    Raises:
        UsageError: none or several samples have that name.
    """
    if sample in ids:
        return sample
    if not ids:
        raise UsageError(f"sample {sample}: is unknown: expected SOURCE/DROP/KEY or a KEY of some snapshot.")
    if len(ids) > 1:
        shown = ", ".join(sorted(ids)[:5])
        raise UsageError(f"sample {sample}: is ambiguous: {len(ids)} samples have this key: {shown}. Use the full id.")
    return next(iter(ids))


def _batches(store: Store, digest: str, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    with scratch_folder("read") as folder:
        with pq.ParquetFile(store.fetch(digest, folder)) as file:
            yield from file.iter_batches(
                BATCH_ROWS, columns=None if columns is None else list(columns), use_threads=False
            )
