"""Why a sample is, or is not, in a release: the decision on record and the signals it rests on."""

from collections.abc import Iterator
from typing import Any

from mm_assets.identity.canonical import Json
from mm_assets.lineage.records import Row, current_manifest, current_manifests, one_id, rows_about
from mm_assets.release.labels import LABELS_FILE
from mm_assets.release.shards import Place, places
from mm_assets.releases.spec import read_spec
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store

#: Manifests with signals: a shard's entry names both.
SIGNAL_ASSETS = ("features", "embeddings")
#: Its environment is the decoders that were in use.
CODEC_ASSET = "features"
LETTER_ASSETS = ("snapshot", "features")


def explain_sample(store: Store, release: str, sample: str) -> dict[str, Json]:
    """The decision about one sample.

    Args:
        store: The store to read.
        release: An open release, frozen or not.
        sample: ``SOURCE/DROP/KEY``, or the key alone where it is unambiguous.

    Returns:
        ``selected``; ``reasons`` why not (for a dead letter, its reason; ``not_frozen`` before the freeze);
        ``signals`` and ``codecs``, the versions of what decoded it (both empty for a dead letter); and where it is.

    Raises:
        UsageError: the release or the sample does not exist, or several samples have that key.
    """
    frozen = current_manifest(store, "dataset_release", Partition(release=release))
    shards = places(store, frozen[1]) if frozen else _open_shards(store, release)
    if frozen:
        rows = rows_about(store, frozen[1].output("samples.parquet").digest, sample)
    else:
        rows = list(_unfrozen_rows(store, shards, sample))
    exact = {row["id"] for row in rows}
    letters = [] if sample in exact else list(_letters(store, shards, sample))
    sample_id = one_id(sample, exact | {row["id"] for row in letters})
    rows = sorted((row for row in rows if row["id"] == sample_id), key=lambda row: not row["selected"])
    if rows:
        return _decision(store, shards, rows[0]) | _label(store, frozen, str(sample_id))
    return _dead(next(row for row in letters if row["id"] == sample_id))


def _open_shards(store: Store, release: str) -> list[Place]:
    """What is materialized of a release that is not frozen."""
    read_spec(store, release)
    shards: dict[str, dict[str, str]] = {}
    for asset in ("snapshot", *SIGNAL_ASSETS):
        for digest, manifest in current_manifests(store, asset):
            if manifest.partition.release == release:
                shards.setdefault(manifest.partition.shard or "", {})[asset] = digest
    return [Place(release=release, shard=shard, manifests=manifests) for shard, manifests in shards.items()]


def _unfrozen_rows(store: Store, shards: list[Place], sample: str) -> Iterator[Row]:
    for shard in shards:
        for asset, table in (("features", "signals.parquet"), ("snapshot", "samples.parquet")):
            if asset not in shard.manifests:
                continue
            found = rows_about(
                store, read_manifest(store, shard.manifests[asset]).output(table).digest, sample, ("id",)
            )
            dead = {row["id"] for row in _letters(store, [shard], sample)}
            place = {"shard": shards.index(shard)}
            decision = {"selected": False, "reasons": "not_frozen", "split": None, "duplicate_of": None}
            yield from ({**row, **place, **decision} for row in found if row["id"] not in dead)
            break


def _letters(store: Store, shards: list[Place], sample: str) -> Iterator[Row]:
    for shard in shards:
        for asset in LETTER_ASSETS:
            if asset in shard.manifests:
                output = read_manifest(store, shard.manifests[asset]).output("dead_letters.parquet")
                yield from rows_about(store, output.digest, sample)


def _decision(store: Store, shards: list[Place], row: Row) -> dict[str, Json]:
    shard = _shard_of(shards, row)
    manifests = [read_manifest(store, shard.manifests[asset]) for asset in SIGNAL_ASSETS if asset in shard.manifests]
    return {
        "id": row["id"],
        "selected": row["selected"],
        "reasons": [reason for reason in row["reasons"].split(",") if reason],
        "split": row["split"],
        "duplicate_of": row["duplicate_of"],
        "shard": shard.path,
        "signals": _signals(store, manifests, row["id"]),
        "codecs": {
            name: value
            for entry in manifests
            if entry.asset == CODEC_ASSET
            for name, value in entry.environment.items()
        },
    }


def _label(store: Store, frozen: tuple[str, Manifest] | None, sample_id: str) -> dict[str, Json]:
    """Where a sample's label comes from; nothing before the freeze, or where it has none."""
    outputs = {output.name: output.digest for output in frozen[1].outputs} if frozen else {}
    if LABELS_FILE not in outputs:
        return {}
    rows = [row for row in rows_about(store, outputs[LABELS_FILE], sample_id) if row["id"] == sample_id]
    return {"label": {name: row for name, row in rows[0].items() if name not in ("id", "shard", "row")}} if rows else {}


def _shard_of(shards: list[Place], row: Row) -> Place:
    """The shard of a row: its number, or in a table of the first version its release and its name."""
    if isinstance(row["shard"], int):
        return shards[row["shard"]]
    return next(shard for shard in shards if (shard.release, shard.shard) == (row["release"], row["shard"]))


def _signals(store: Store, manifests: list[Manifest], sample_id: str) -> dict[str, Json]:
    signals: dict[str, Json] = {}
    for manifest in manifests:
        for row in rows_about(store, manifest.output("signals.parquet").digest, sample_id):
            if row["id"] == sample_id:
                signals |= {name: _readable(value) for name, value in row.items() if name != "id"}
    return signals


def _readable(value: Any) -> Json:
    """Signatures are bytes, which JSON does not have."""
    return value.hex() if isinstance(value, bytes) else value


def _dead(letter: Row) -> dict[str, Json]:
    return {
        "id": letter["id"],
        "selected": False,
        "reasons": [letter["reason"]],
        "split": None,
        "duplicate_of": None,
        "shard": None,
        "signals": {},
        "codecs": {},
        "dead_letter": {name: letter[name] for name in ("stage", "modality", "object", "member", "detail")},
    }
