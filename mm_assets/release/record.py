"""The release record: one document that answers an auditor's questions about a release without opening its data."""

import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import duckdb
import yaml

from mm_assets.errors import ObjectCorruptError
from mm_assets.features.schema import REDACTIONS
from mm_assets.identity.canonical import Json
from mm_assets.modalities.table import NAMES, aspect
from mm_assets.release.shards import Shard, merkle_root
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input
from mm_assets.store.objects import Store

Origins: TypeAlias = list[dict[str, Json]]

#: Fields of ``drop.json`` that describe the delivery; its list of objects is counted, not copied.
_DROP_FIELDS = ("captured_from", "captured_to", "format", "annotation")


def release_record(
    job: Job,
    database: duckdb.DuckDBPyConnection,
    *,
    parent: Mapping[str, Any] | None,
    shards: Sequence[Shard],
    stated: Sequence[Mapping[str, str]],
    statistics: Mapping[str, Any],
    samples_digest: str,
    unused_exclusions: Sequence[str],
    unknown_members: Mapping[str, int],
) -> dict[str, Json]:
    """The document ``record.json``; ``parent`` is the parent's. It does not hold the release's name.

    ``stated`` is what the shards' tables of signals say about themselves. ``unknown_members`` counts, by extension,
    members of the own shards' tars that no stage reads.
    """
    sources, drops = _origins(job, parent)
    preprocessing = _preprocessing(database, stated)
    captured = [str(drop[end]) for drop in drops for end in ("captured_from", "captured_to") if drop[end]]
    return {
        "schema": "mm.release_record/3",
        "parent": parent["checksums"]["merkle_root"] if parent else None,
        "seed": job.params["seed"],
        "use": job.params.get("use"),
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
            "unknown_members": _added(unknown_members, parent),
        },
        "languages": statistics["languages"],
        **preprocessing,
        "label_schemas": _label_schemas(sources),
        "exclusion_rules": {
            "policy": job.params["policy"],
            "exclusions": job.params["exclusions"],
            "unused_exclusions": list(unused_exclusions),
            "config": job.params["config"],
            "reasons": statistics["reasons"],
        },
        "redaction": _redaction(database, preprocessing["preprocessing"]),
        "checksums": {
            "algorithm": "sha256",
            "merkle_root": merkle_root(shards),
            "num_shards": len(shards),
            "samples": samples_digest,
        },
    }


def _added(unknown: Mapping[str, int], parent: Mapping[str, Any] | None) -> dict[str, Json]:
    """The own counts and the parent's, which an older version may not have recorded, by extension."""
    total = Counter[str](parent["coverage"].get("unknown_members", {}) if parent else {})
    total.update(unknown)
    return dict(sorted(total.items()))


def _origins(job: Job, parent: Mapping[str, Any] | None) -> tuple[Origins, Origins]:
    """Sources and drops of a release, its parent's included, sorted and without repetition."""
    known = parent or {"sources": [], "drops": []}
    sources = known["sources"] + [_source(job.store, entry) for entry in job.inputs_of("source")]
    described = {entry.partition["source"]: entry.manifest for entry in job.inputs_of("source")}
    own = [_drop(job.store, entry) for entry in job.inputs_of("drop")]
    drops = known["drops"] + [{**entry, "source_digest": described[str(entry["source"])]} for entry in own]
    return _distinct(sources), _distinct(drops)


def _distinct(entries: list[dict[str, Json]]) -> list[dict[str, Json]]:
    by_name = {
        json.dumps([entry["source"], entry.get("drop"), entry["digest"], entry.get("source_digest")]): entry
        for entry in entries
    }
    return [by_name[name] for name in sorted(by_name)]


def _source(store: Store, entry: Input) -> dict[str, Json]:
    try:
        description = yaml.safe_load(store.get_bytes(entry.manifest))
    except yaml.YAMLError as error:
        raise ObjectCorruptError(
            f"source {entry.partition['source']}: {entry.manifest} is not YAML: {error}."
        ) from error
    return {**_plain(description), "source": entry.partition["source"], "digest": entry.manifest}


def _drop(store: Store, entry: Input) -> dict[str, Json]:
    description = json.loads(store.get_bytes(entry.manifest))
    return {
        "source": entry.partition["source"],
        "drop": entry.partition["drop"],
        "digest": entry.manifest,
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


def _label_schemas(sources: Sequence[Mapping[str, Json]]) -> list[Json]:
    """The version of the label schema in every description of a source: one source may have had several."""
    names = ("source", "digest", "label_schema_version")
    return [{name: source.get(name) for name in names} for source in sources]


def _preprocessing(database: duckdb.DuckDBPyConnection, stated: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Parameters that made the shards, as their tables state them, and what was seen of sound, pictures and videos.

    Which code and codecs made a shard is in its manifest: others that made the same bytes make no other record. Shards
    of the first version state their codecs here too.
    """
    versions = {json.dumps(entry, sort_keys=True): dict(entry) for entry in stated}
    observed = database.execute(
        """SELECT min(sample_rate), max(sample_rate), min(image_width), min(image_height), max(image_width),
           max(image_height), min(video_fps), max(video_fps), min(video_width), min(video_height), max(video_width),
           max(video_height) FROM judged WHERE selected"""
    ).fetchall()[0]
    made = [versions[key] for key in sorted(versions)]
    return {
        "preprocessing": list(made),
        "sampling_rate": {"target_hz": _values(made, "params.sample_rate"), "observed_hz": list(observed[:2])},
        "resolution": {"target_pixels": _values(made, "params.image_size"), "observed_pixels": list(observed[2:6])},
        "video": {
            "target_frames": _values(made, "params.video_frames"),
            "target_pixels": _values(made, "params.video_size"),
            "observed_fps": list(observed[6:8]),
            "observed_pixels": list(observed[8:]),
        },
    }


def _values(made: Sequence[Mapping[str, str]], name: str) -> list[Json]:
    """Every value of a parameter, in order and without repetition; a shard that does not state it has none."""
    return list(dict.fromkeys(int(entry[name]) for entry in made if name in entry))


def _redaction(database: duckdb.DuckDBPyConnection, made: Sequence[Mapping[str, str]]) -> dict[str, Json]:
    """What was replaced before texts became tokens, in how many places, and what was seen before that.

    ``applied`` names the redactions of every shard; where shards differ, ``preprocessing`` says which have which.
    Snapshots keep what was delivered, byte for byte.
    """
    flags = [flag for name in NAMES for flag in aspect(name, "signals").FLAGS]
    counts = ", ".join(f"count(*) FILTER ({flag})" for flag in flags)
    *flagged, replaced = database.execute(
        f"SELECT {counts}, coalesce(sum(num_redacted), 0) FROM judged WHERE selected"
    ).fetchall()[0]
    each = [set(filter(None, entry.get(REDACTIONS, "").split(","))) for entry in made]
    return {
        "applied": list(sorted(set[str].intersection(*each))) if each else [],
        "num_redacted": int(replaced),
        "flagged": {flag.removeprefix("has_"): int(count) for flag, count in zip(flags, flagged, strict=True)},
    }
