"""``mm verify``: re-hashes everything that refs and the registry reach."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.store.manifest import read_manifest
from mm_assets.store.objects import Store, object_key
from mm_assets.store.refs import list_refs

#: Assets whose inputs are manifests; every other input (a drop, an encoder) is a plain object.
PIPELINE_ASSETS = frozenset(
    {"snapshot", "features", "embeddings", "dataset_release", "batch_plan", "model", "evaluation", "promotion"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """Keys checked and the ones that are wrong, sorted."""

    objects: int
    corrupt: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is corrupt or missing."""
        return not self.corrupt and not self.missing


def verify_store(store: Store, on_object: Callable[[], None] = lambda: None) -> VerifyReport:
    """Re-hashes every object that a ref or the registry reaches: manifests, their inputs and their outputs.

    Args:
        store: The store to read.
        on_object: Called after each object, for a progress bar.
    """
    corrupt: set[str] = set()
    missing: set[str] = set()
    seen: set[str] = set()
    registry = _registry_records(store)
    manifests = [ref.manifest for ref in list_refs(store)]
    manifests += [record[name] for record in registry for name in ("model", "dataset_release", "decision")]
    for leaf in {record["previous"] for record in registry if record["previous"]}:
        seen.add(leaf)
        _verify_leaf(store, leaf, corrupt, missing)
    while manifests:
        digest = manifests.pop()
        if digest in seen:
            continue
        seen.add(digest)
        try:
            manifest = read_manifest(store, digest)
        except ObjectCorruptError:
            corrupt.add(object_key(digest))
            continue
        except ObjectMissingError:
            missing.add(object_key(digest))
            continue
        finally:
            on_object()
        manifests.extend(entry.digest for entry in manifest.inputs if entry.asset in PIPELINE_ASSETS)
        leaves = {output.digest for output in manifest.outputs}
        leaves.update(entry.digest for entry in manifest.inputs if entry.asset not in PIPELINE_ASSETS)
        for leaf in sorted(leaves - seen):
            seen.add(leaf)
            _verify_leaf(store, leaf, corrupt, missing)
            on_object()
    return VerifyReport(objects=len(seen), corrupt=tuple(sorted(corrupt)), missing=tuple(sorted(missing)))


def _verify_leaf(store: Store, digest: str, corrupt: set[str], missing: set[str]) -> None:
    try:
        store.check_object(digest)
    except ObjectCorruptError:
        corrupt.add(object_key(digest))
    except ObjectMissingError:
        missing.add(object_key(digest))


def _registry_records(store: Store) -> list[dict[str, Any]]:
    """What the registry holds now and, as far as it can be read, everything it held before."""
    records: list[dict[str, Any]] = []
    for info in store.list_keys("refs/registry/"):
        current = store.read_key(info.key)
        data = current.data if current else None
        while data is not None:
            records.append(json.loads(data))
            previous = records[-1]["previous"]
            try:
                data = store.get_bytes(previous) if previous else None
            except (ObjectMissingError, ObjectCorruptError):
                # The chain ends here; the broken link is among what the records name and is reported as such.
                data = None
    return records
