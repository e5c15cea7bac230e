"""The release record: one document that answers an auditor's questions about a release without opening its data."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import duckdb
import yaml

from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import Json
from mm_assets.release.shards import SHARD_ASSETS, Shard, merkle_root
from mm_assets.store.manifest import Input, Manifest, Recipe, read_manifest
from mm_assets.store.objects import Store

Origins: TypeAlias = list[dict[str, Json]]

#: Fields of ``drop.json`` that describe the delivery; its list of objects is counted, not copied.
_DROP_FIELDS = ("captured_from", "captured_to", "format", "annotation")
#: Parameters of a shard that say which shard it is, not how it was made.
_PLACEMENT = frozenset({"num_shards", "shard_index"})


def read_origins(store: Store, recipe: Recipe, parent: Manifest | None) -> tuple[Origins, Origins]:
    """Sources and drops of a release, its parent's included, sorted and without repetition."""
    known = json.loads(store.get_bytes(parent.output("record.json").digest)) if parent else {"sources": [], "drops": []}
    sources = known["sources"] + [_source(store, entry) for entry in recipe.inputs if entry.asset == "source"]
    drops = known["drops"] + [_drop(store, entry) for entry in recipe.inputs if entry.asset == "drop"]
    return _distinct(sources), _distinct(drops)


def release_record(
    store: Store,
    database: duckdb.DuckDBPyConnection,
    *,
    recipe: Recipe,
    parent: Manifest | None,
    shards: Sequence[Shard],
    statistics: Mapping[str, Any],
    samples_digest: str,
    unused_exclusions: Sequence[str],
) -> dict[str, Json]:
    """The document ``record.json``."""
    sources, drops = read_origins(store, recipe, parent)
    captured = [str(drop[end]) for drop in drops for end in ("captured_from", "captured_to") if drop[end]]
    return {
        "schema": "mm.release_record/1",
        "release": recipe.partition.release,
        "parent": parent.partition.release if parent else None,
        "seed": recipe.params["seed"],
        "sources": sources,
        "drops": drops,
        "captured_from": min(captured, default=None),
        "captured_to": max(captured, default=None),
        "coverage": {
            "num_samples": statistics["num_samples"],
            "num_selected": statistics["num_selected"],
            "num_labelled": statistics["num_labelled"],
            "num_dead_letters": statistics["num_dead_letters"],
            "modalities": statistics["modalities"],
        },
        "languages": statistics["languages"],
        **_preprocessing(store, database, shards),
        "label_schemas": _versions(sources, "label_schema"),
        "exclusion_rules": {
            "policy": recipe.params["policy"],
            "exclusions": recipe.params["exclusions"],
            "unused_exclusions": list(unused_exclusions),
            "config": recipe.params["config"],
            "reasons": statistics["reasons"],
        },
        "redaction": _redaction(database),
        "checksums": {
            "algorithm": "sha256",
            "merkle_root": merkle_root(shards),
            "num_shards": len(shards),
            "samples": samples_digest,
        },
    }


def _distinct(entries: list[dict[str, Json]]) -> list[dict[str, Json]]:
    by_name = {json.dumps([entry["source"], entry.get("drop"), entry["digest"]]): entry for entry in entries}
    return [by_name[name] for name in sorted(by_name)]


def _source(store: Store, entry: Input) -> dict[str, Json]:
    try:
        description = yaml.safe_load(store.get_bytes(entry.digest))
    except yaml.YAMLError as error:
        raise ObjectCorruptError(f"source {entry.partition['source']}: {entry.digest} is not YAML: {error}.") from error
    return {**_plain(description), "source": entry.partition["source"], "digest": entry.digest}


def _drop(store: Store, entry: Input) -> dict[str, Json]:
    description = json.loads(store.get_bytes(entry.digest))
    return {
        "source": entry.partition["source"],
        "drop": entry.partition["drop"],
        "digest": entry.digest,
        **{name: description.get(name) for name in _DROP_FIELDS},
        "num_objects": len(description.get("objects", [])),
    }


def _plain(value: Any) -> Any:
    """YAML's dates as text; everything else is JSON already."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def _versions(sources: Sequence[Mapping[str, Json]], prefix: str) -> dict[str, Json]:
    return {
        str(source["source"]): {name: value for name, value in sorted(source.items()) if name.startswith(prefix)}
        for source in sources
    }


def _preprocessing(store: Store, database: duckdb.DuckDBPyConnection, shards: Sequence[Shard]) -> dict[str, Json]:
    """Code and parameters of every version that made a shard, and what they did to sound and pictures."""
    versions: dict[tuple[str, str], dict[str, Json]] = {}
    for shard in shards:
        for asset in SHARD_ASSETS:
            manifest = read_manifest(store, getattr(shard, asset))
            params = {name: value for name, value in manifest.params.items() if name not in _PLACEMENT}
            key = (asset, json.dumps([manifest.code, params, manifest.environment], sort_keys=True))
            versions[key] = {
                "asset": asset, "code": manifest.code, "params": params, "environment": manifest.environment,
            }  # fmt: skip
    observed = database.execute(
        """SELECT min(s.sample_rate), max(s.sample_rate), min(s.image_width), min(s.image_height), max(s.image_width),
           max(s.image_height) FROM samples s JOIN frozen f USING (position) WHERE f.selected"""
    ).fetchall()[0]
    features = [entry["params"] for (asset, _), entry in sorted(versions.items()) if asset == "features"]
    return {
        "preprocessing": [versions[key] for key in sorted(versions)],
        "sampling_rate": {"target_hz": _values(features, "sample_rate"), "observed_hz": list(observed[:2])},
        "resolution": {"target_pixels": _values(features, "image_size"), "observed_pixels": list(observed[2:])},
    }


def _values(params: Sequence[Any], name: str) -> list[Json]:
    """Every value of parameter ``name``, wherever it is nested, in order and without repetition."""
    found: list[Json] = []
    queue = list(params)
    while queue:
        entry = queue.pop(0)
        if isinstance(entry, dict):
            found += [value for key, value in sorted(entry.items()) if key == name and value not in found]
            queue += [value for _, value in sorted(entry.items())]
    return found


def _redaction(database: duckdb.DuckDBPyConnection) -> dict[str, Json]:
    flagged = database.execute(
        """SELECT count(*) FILTER (s.has_email), count(*) FILTER (s.has_phone), count(*) FILTER (s.has_url)
           FROM samples s JOIN frozen f USING (position) WHERE f.selected"""
    ).fetchall()[0]
    # Blobs are kept byte for byte; what is flagged can only be excluded by policy.
    return {"applied": [], "flagged": dict(zip(("email", "phone", "url"), map(int, flagged), strict=True))}
