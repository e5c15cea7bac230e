import json
import re
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_assets.errors import SettingsError
from mm_assets.launchers.environment import Placement
from mm_assets.launchers.kubernetes.pod_spec import (
    Surroundings,
    label_value,
    placement_of,
    pod_labels,
    pod_metadata,
    pod_spec,
    surroundings_of,
)
from mm_assets.launchers.protocol import StageRequest
from mm_assets.launchers.resources import Resources, Toleration
from mm_assets.settings import read_settings

IMAGE = "registry.example/mm/stage@sha256:" + "a" * 64
SURROUNDINGS = Surroundings(
    image=IMAGE,
    service_account="mm-stage",
    environment={"MM_STORE_URI": "s3://b/p"},
    store_secret="mm-store",
    owner_pod_name="run-1",
    owner_pod_uid="0d3f",
)
REQUEST = StageRequest(
    asset="model", release="2026.11", shard=None, force=False, run_id="7f1c", attempt="aa", placement=None
)
GPU = Resources(
    cpus=1.5,
    memory_bytes=8 << 30,
    accelerators=2,
    accelerator_kind="NVIDIA-H200",
    node_selector={"pool": "gpu"},
    tolerations=(Toleration(key="nvidia.com/gpu", effect="NoSchedule"),),
    max_runtime_s=77,
)


def _pod(request: StageRequest = REQUEST, resources: Resources = GPU) -> dict[str, Any]:
    metadata = pod_metadata(request, SURROUNDINGS) | {"name": "x"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(request, resources, SURROUNDINGS)}


def test_pod_fits_the_kubernetes_schema_strictly() -> None:
    kubernetes_validate.validate(_pod(), "1.32", strict=True)
    kubernetes_validate.validate(_pod(replace(REQUEST, shard="0003"), Resources()), "1.32", strict=True)


def test_pod_runs_as_nobody_on_a_read_only_root_without_capabilities() -> None:
    spec = _pod()["spec"]
    container = spec["containers"][0]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert not spec["automountServiceAccountToken"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/work", "/dev/shm"}


def test_resources_nodes_and_deadline_of_the_configuration_reach_the_pod() -> None:
    spec = _pod()["spec"]
    limits = spec["containers"][0]["resources"]["limits"]
    assert limits == {
        "cpu": "1500m", "memory": str(8 << 30), "ephemeral-storage": str(10 << 30), "nvidia.com/gpu": "2"
    }  # fmt: skip
    assert spec["containers"][0]["resources"]["requests"] == limits
    assert spec["volumes"][0] == {"name": "work", "emptyDir": {"sizeLimit": str(10 << 30)}}
    assert spec["nodeSelector"] == {"pool": "gpu", "nvidia.com/gpu.product": "NVIDIA-H200"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["activeDeadlineSeconds"] == 77
    assert spec["restartPolicy"] == "Never"
    environment = {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}
    assert (environment["MM_CPUS"], environment["MM_ACCELERATORS"]) == ("1", "2")
    assert "MM_WORLD_SIZE" not in environment, "one process per accelerator follows from these"


def test_pod_is_owned_by_the_run_and_labelled_with_it() -> None:
    metadata = pod_metadata(replace(REQUEST, shard="0003"), SURROUNDINGS)
    assert [(owner["name"], owner["uid"]) for owner in metadata["ownerReferences"]] == [("run-1", "0d3f")]
    assert metadata["labels"]["dagster/run-id"] == "7f1c"
    assert metadata["labels"]["mm-assets/shard"] == "0003"
    assert "ownerReferences" not in pod_metadata(REQUEST, replace(SURROUNDINGS, owner_pod_uid=None))


def test_credentials_are_named_by_their_secret_and_never_written_into_the_pod() -> None:
    settings = read_settings(
        {
            "MM_STORE_URI": "s3://b/p",
            "MM_STAGE_IMAGE": IMAGE,
            "MM_K8S_STORE_SECRET": "mm-store",
            "AWS_ACCESS_KEY_ID": "AKIAUNIQUE",
            "AWS_SECRET_ACCESS_KEY": "s3cr3t-unique",
        }
    )
    text = json.dumps(pod_spec(REQUEST, GPU, surroundings_of(settings)))
    assert '"secretRef": {"name": "mm-store"}' in text
    assert "UNIQUE" not in text and "s3cr3t" not in text


@pytest.mark.parametrize("image", [None, "stage", "stage:latest", "stage:1@sha256:abc", "stage@sha256:" + "A" * 64])
def test_image_that_is_not_named_by_digest_is_refused(image: str | None) -> None:
    settings = read_settings({"MM_STORE_URI": "s3://b/p"} | ({"MM_STAGE_IMAGE": image} if image else {}))
    with pytest.raises(SettingsError, match=re.escape(repr(image))):
        surroundings_of(settings)


def test_embedded_store_is_refused_because_no_pod_reaches_it() -> None:
    with pytest.raises(SettingsError, match="MM_STORE_URI"):
        surroundings_of(read_settings({"MM_STAGE_IMAGE": IMAGE}))


def test_placement_travels_on_the_command_line_unchanged() -> None:
    placement = placement_of(GPU, SURROUNDINGS)
    command = replace(REQUEST, shard="0001", force=True, placement=placement).command()
    assert command[:3] == ["python", "-m", "mm_assets.entrypoint"]
    assert Placement.decode(command[command.index("--placement") + 1]) == placement
    assert "--force" in command and command[command.index("--shard") + 1] == "0001"


@pytest.mark.property
@given(st.text(max_size=200))
def test_every_label_value_is_legal(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", label_value(text))


@pytest.mark.property
@given(
    st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
)
def test_different_releases_have_different_labels(one: str, other: str) -> None:
    labels = [pod_labels(replace(REQUEST, release=release))["mm-assets/release"] for release in (one, other)]
    assert (labels[0] == labels[1]) == (one == other)
