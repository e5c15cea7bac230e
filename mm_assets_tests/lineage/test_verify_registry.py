"""``mm verify`` follows the registry, also back to what it held before."""

import json

import pytest

from mm_assets.lineage.verify import verify_store
from mm_assets.store.commit import OutputFile, StageResult, materialize
from mm_assets.store.manifest import Partition, Recipe
from mm_assets.store.objects import object_key


@pytest.fixture
def manifest(store, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    recipe = Recipe(
        asset="model",
        partition=Partition(release="r1"),
        code="sha256:" + "0" * 64,
        params={},
        environment={},
        inputs=(),
    )
    file = OutputFile(name="weights", path=path, media_type="application/octet-stream")
    return materialize(store, recipe, lambda: StageResult(files=(file,), stats={})).manifest_digest


def register(store, manifest, previous):
    record = {"model": manifest, "dataset_release": manifest, "decision": manifest, "previous": previous}
    key, data = "refs/registry/production.json", json.dumps(record).encode()
    current = store.read_key(key)
    assert store.replace_key(key, data, current.etag) if current else store.create_key(key, data)


def test_a_lost_earlier_record_of_the_registry_is_missing(store, manifest):
    register(store, manifest, None)
    assert verify_store(store).is_sound
    gone = "sha256:" + "1" * 64
    register(store, manifest, gone)
    assert verify_store(store).missing == (object_key(gone),)


def test_a_registered_model_whose_ref_is_gone_is_still_verified(store, manifest):
    register(store, manifest, None)
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/refs/model/r1.json")
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{object_key(manifest)}")
    assert verify_store(store).missing == (object_key(manifest),)
