"""OpenLineage events of a release: one completed run per partition, from refs and manifests, for other lineage tools.

A dataset is an asset's partition (or a drop, a source, an encoder) in the namespace of the store; its version is its
content. A run is the attempt that committed the partition.
"""

import uuid
from collections.abc import Iterator

from mm_assets.identity.canonical import Json
from mm_assets.pipeline import ASSETS
from mm_assets.releases.spec import read_spec
from mm_assets.store.manifest import Input, Manifest, Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref, read_ref

PRODUCER = "urn:mm-assets"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets"
VERSION_SCHEMA = f"{_FACETS}/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
STATISTICS_SCHEMA = f"{_FACETS}/1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet"


def openlineage_events(store: Store, release: str) -> Iterator[dict[str, Json]]:
    """One event per materialized partition of a release, in the order of the pipeline.

    Raises:
        UnknownReleaseError: there is no such release.
    """
    spec = read_spec(store, release)
    for asset in ASSETS.values():
        shards: list[str] | list[None] = spec.shards() if asset.is_sharded else [None]
        for shard in shards:
            ref = read_ref(store, asset.name, Partition(release=release, shard=shard)).ref
            if ref is not None:
                yield _event(store, ref, read_manifest(store, ref.manifest))


def _event(store: Store, ref: Ref, manifest: Manifest) -> dict[str, Json]:
    namespace = store.uri("").rstrip("/")
    return {
        "eventType": "COMPLETE",
        "eventTime": ref.committed_at,
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{ref.attempt}")), "facets": {}},
        "job": {"namespace": namespace, "name": manifest.asset, "facets": {}},
        "inputs": [_input(store, namespace, entry) for entry in manifest.inputs],
        "outputs": [
            {
                "namespace": namespace,
                "name": f"{manifest.asset}/{manifest.partition.path}",
                "facets": {"version": _version(manifest.content)},
                "outputFacets": {"outputStatistics": _statistics(manifest)},
            }
        ],
    }


def _input(store: Store, namespace: str, entry: Input) -> dict[str, Json]:
    # The version that the event of the run that made it says it has; what no run made is named by its digest.
    version = read_manifest(store, entry.manifest).content if entry.asset in ASSETS else entry.manifest
    return {
        "namespace": namespace,
        "name": "/".join([entry.asset, *entry.partition.values()]),
        "facets": {"version": _version(version)},
    }


def _version(version: str) -> dict[str, Json]:
    return {"_producer": PRODUCER, "_schemaURL": VERSION_SCHEMA, "datasetVersion": version}


def _statistics(manifest: Manifest) -> dict[str, Json]:
    rows = manifest.stats.get("rows_out")
    found: dict[str, Json] = {"_producer": PRODUCER, "_schemaURL": STATISTICS_SCHEMA}
    found |= {"rowCount": rows} if isinstance(rows, int) else {}
    return found | {
        "size": sum(output.size_bytes for output in manifest.outputs),
        "fileCount": len(manifest.outputs),
    }
