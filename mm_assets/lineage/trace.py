"""Where a sample went, and what a model was made from: pure readers over manifests and tables."""

from mm_assets.identity.canonical import Json
from mm_assets.lineage.records import (
    Row,
    current_manifests,
    find_model,
    known_models,
    ledger_places,
    one_id,
    rows_about,
)
from mm_assets.release.shards import places
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store

LETTER_COLUMNS = ("id", "object", "stage", "reason")


def trace_sample(store: Store, sample: str) -> dict[str, Json]:
    """Everything a sample reached.

    Args:
        store: The store to read.
        sample: ``SOURCE/DROP/KEY``, or the key alone where it is unambiguous.

    Returns:
        ``source``; ``shards`` that hold its bytes (``RELEASE/SHARD``); ``releases`` that selected it; ``steps`` in
        which a model consumed it (by the model's ledger, with the slot in the plan); ``models`` (manifest digests).

    Raises:
        UsageError: no sample, or more than one, has that name.
    """
    rows = _shard_rows(store, "snapshot", "samples.parquet", sample, ("id", "object"))
    letters = [
        found
        for asset in ("snapshot", "features")
        for found in _shard_rows(store, asset, "dead_letters.parquet", sample, LETTER_COLUMNS)
    ]
    sample_id = one_id(sample, {row["id"] for _, row in (*rows, *letters)})
    source, drop, key = sample_id.split("/", 2)
    steps = [step for digest, model in known_models(store).items() for step in _steps(store, digest, model, sample_id)]
    return {
        "id": sample_id,
        "source": source,
        "drop": drop,
        "key": key,
        "objects": sorted({row["object"] for _, row in (*rows, *letters) if row["id"] == sample_id}),
        "shards": sorted({place for place, row in rows if row["id"] == sample_id}),
        "dead_letters": [
            {"shard": place, "stage": row["stage"], "reason": row["reason"]}
            for place, row in letters
            if row["id"] == sample_id
        ],
        "releases": _releases(store, sample_id),
        "steps": steps,
        "models": sorted({str(step["model"]) for step in steps}),
    }


def trace_model(store: Store, ref: str) -> dict[str, Json]:
    """What a model was made from, down to the drops.

    Args:
        store: The store to read.
        ref: A release id, a manifest digest or ``production``.

    Returns:
        ``model``, ``plan`` and ``dataset_release`` (manifest digests), ``spec`` (digest of the training spec),
        ``snapshot_shards`` (``RELEASE/SHARD``) and ``drops`` (``SOURCE/DROP``).

    Raises:
        UsageError: there is no such model.
    """
    digest, model = find_model(store, ref)
    dataset_release = model.input("dataset_release").manifest
    shards = places(store, read_manifest(store, dataset_release))
    drops = {
        f"{entry.partition['source']}/{entry.partition['drop']}"
        for shard in shards
        for entry in read_manifest(store, shard.manifests["snapshot"]).inputs_of("drop")
    }
    return {
        "model": digest,
        "release": model.partition.release,
        "spec": model.output("spec.json").digest,
        "plan": model.input("batch_plan").manifest,
        "dataset_release": dataset_release,
        "snapshot_shards": sorted(shard.path for shard in shards),
        "drops": sorted(drops),
    }


def _shard_rows(store: Store, asset: str, table: str, sample: str, columns: tuple[str, ...]) -> list[tuple[str, Row]]:
    """Rows about the sample in every current shard of ``asset``, each with ``RELEASE/SHARD``."""
    return [
        (manifest.partition.path, row)
        for _, manifest in current_manifests(store, asset)
        for row in rows_about(store, manifest.output(table).digest, sample, columns)
    ]


def _releases(store: Store, sample_id: str) -> list[str]:
    selecting = {
        manifest.partition.release
        for _, manifest in current_manifests(store, "dataset_release")
        for row in rows_about(store, manifest.output("samples.parquet").digest, sample_id, ("id", "selected"))
        if row["id"] == sample_id and row["selected"]
    }
    return sorted(selecting)


def _steps(store: Store, digest: str, model: Manifest, sample_id: str) -> list[dict[str, Json]]:
    consumed = ledger_places(store, model.output("ledger.parquet").digest, sample_id)
    if not consumed:
        return []
    plan = read_manifest(store, model.input("batch_plan").manifest)
    columns = ("id", "step", "lane", "pack", "slot")
    planned = rows_about(store, plan.output("plan.parquet").digest, sample_id, columns)
    return [
        {"model": digest, "step": row["step"], "lane": row["lane"], "pack": row["pack"], "slot": row["slot"]}
        for row in planned
        if row["id"] == sample_id and (row["step"], row["lane"]) in consumed
    ]
