"""What the tests of the first version's store read of it."""

import io
from typing import Any

import pyarrow.parquet as pq

from mm_assets.materialize import Workspace
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref
from mm_assets_tests.conftest import FIRST_VERSION
from mm_assets_tests.stores import only, read_contents

FIRST = read_contents(FIRST_VERSION)
EMOJI = (("emoji", "2026-11"),)


def again(workspace: Workspace) -> Workspace:
    """Another process."""
    return Workspace(workspace.settings, workspace.store)


def manifest_of(store: Store, asset: str, release: str) -> Manifest:
    ref = read_ref(store, asset, only(release)).ref
    assert ref is not None
    return read_manifest(store, ref.manifest)


def first_sample(store: Store) -> dict[str, Any]:
    """A sample that was trained on."""
    table = manifest_of(store, "dataset_release", "r1").output("samples.parquet").digest
    rows = pq.read_table(io.BytesIO(store.get_bytes(table))).to_pylist()
    return next(row for row in rows if row["selected"] and row["split"] == "train")
