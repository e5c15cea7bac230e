"""From a request to a pod: pure functions, no Kubernetes client.

Invariants: the image is named by digest, no secret is in the spec, the container runs as nobody on a read-only root
file system and can write only to its work folder, and every label has a legal value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mm_assets.errors import SettingsError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.launchers.environment import Placement
from mm_assets.launchers.protocol import StageRequest
from mm_assets.launchers.resources import Resources, Toleration
from mm_assets.settings import Settings

CONTAINER = "stage"
WORK_FOLDER = "/work"
USER_ID = 10001
MIN_SHM_BYTES = 64 << 20
SHM_FRACTION = 4  # a quarter of the memory, so that data loaders fit and the stage still does

LABEL_RUN = "dagster/run-id"
LABEL_ATTEMPT = "mm-assets/attempt"
LABEL_COMPONENT = "app.kubernetes.io/component"
COMPONENT = "mm-stage"
ACCELERATOR_RESOURCE = "nvidia.com/gpu"
ACCELERATOR_LABEL = "nvidia.com/gpu.product"
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What every stage pod of one deployment has in common."""

    image: str
    service_account: str
    environment: Mapping[str, str]
    store_secret: str | None
    owner_pod_name: str | None
    owner_pod_uid: str | None


def surroundings_of(settings: Settings) -> Surroundings:
    """The deployment's common part of a stage pod.

    Raises:
        SettingsError: the image is missing or named by a tag, or the store cannot be reached from a pod.
    """
    if settings.store_uri is None:
        raise SettingsError(
            "MM_STORE_URI: is not set: a pod cannot reach the embedded store. Set it and MM_S3_ENDPOINT."
        )
    environment = {"MM_STORE_URI": settings.store_uri, "MM_HOME": f"{WORK_FOLDER}/home"}
    if settings.s3_endpoint:
        environment["MM_S3_ENDPOINT"] = settings.s3_endpoint
    return Surroundings(
        image=image_by_digest(settings.stage_image),
        service_account=settings.k8s_service_account,
        environment=environment,
        store_secret=settings.k8s_store_secret,
        owner_pod_name=settings.pod_name,
        owner_pod_uid=settings.pod_uid,
    )


def image_by_digest(image: str | None) -> str:
    """``image`` if it names exactly one image.

    Raises:
        SettingsError: it is missing, or a tag that can move.
    """
    if not image or not _IMAGE.fullmatch(image):
        raise SettingsError(
            f"MM_STAGE_IMAGE: is unusable: expected <repository>@sha256:<64 hex digits>, got {image!r}."
        )
    return image


def label_value(text: str) -> str:
    """``text`` as a legal label value; what had to be changed keeps its own name through a digest."""
    if _LABEL.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:50].strip("-_.")
    return f"{kept}-{digest_bytes(text.encode())[7:19]}".lstrip("-")


def pod_labels(request: StageRequest) -> dict[str, str]:
    """Labels by which the run, the operator and the janitor find the pod."""
    labels = {
        "app.kubernetes.io/part-of": "mm-assets",
        LABEL_COMPONENT: COMPONENT,
        LABEL_RUN: label_value(request.run_id),
        "mm-assets/asset": label_value(request.asset),
        "mm-assets/release": label_value(request.release),
        LABEL_ATTEMPT: label_value(request.attempt),
    }
    return labels | ({"mm-assets/shard": label_value(request.shard)} if request.shard is not None else {})


def pod_metadata(request: StageRequest, surroundings: Surroundings) -> dict[str, Any]:
    """The pod's metadata but its name. Owned by the run's pod, where there is one, so that both go together."""
    metadata: dict[str, Any] = {"labels": pod_labels(request)}
    if surroundings.owner_pod_name and surroundings.owner_pod_uid:
        metadata["ownerReferences"] = [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": surroundings.owner_pod_name,
                "uid": surroundings.owner_pod_uid,
                "controller": False,
                "blockOwnerDeletion": False,
            }
        ]
    return metadata


def pod_spec(request: StageRequest, resources: Resources, surroundings: Surroundings) -> dict[str, Any]:
    """The pod's spec; Pipes adds its two variables to the first container."""
    return {
        "restartPolicy": "Never",
        "serviceAccountName": surroundings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "activeDeadlineSeconds": resources.max_runtime_s,
        "terminationGracePeriodSeconds": 30,
        "nodeSelector": node_selector(resources),
        "tolerations": [_toleration(toleration) for toleration in resources.tolerations],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(request, resources, surroundings)],
        "volumes": [
            {"name": "work", "emptyDir": {"sizeLimit": str(resources.scratch_bytes)}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(_shm_bytes(resources))}},
        ],
    }


def node_selector(resources: Resources) -> dict[str, str]:
    """Labels a node must have, the product name of its accelerators included."""
    product = {ACCELERATOR_LABEL: resources.accelerator_kind} if resources.accelerator_kind else {}
    return resources.node_selector | product


def placement_of(resources: Resources, surroundings: Surroundings) -> Placement:
    """What decides the pod's environment: its image, the nodes it may land on and whether it sees accelerators."""
    return Placement(
        image=surroundings.image, node_selector=node_selector(resources), accelerators=resources.accelerators
    )


def _container(request: StageRequest, resources: Resources, surroundings: Surroundings) -> dict[str, Any]:
    amounts = {
        "cpu": f"{round(resources.cpus * 1000)}m",
        "memory": str(resources.memory_bytes),
        "ephemeral-storage": str(resources.scratch_bytes),
    }
    if resources.accelerators:
        amounts[ACCELERATOR_RESOURCE] = str(resources.accelerators)
    # The node's number of cores, which a process sees, is not the pod's.
    own = {
        "HOME": WORK_FOLDER,
        "TMPDIR": WORK_FOLDER,
        "MM_CPUS": str(max(1, int(resources.cpus))),
        "MM_ACCELERATORS": str(resources.accelerators),
    }
    environment = own | dict(surroundings.environment)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": surroundings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": request.command(),
        "workingDir": WORK_FOLDER,
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        # Requests equal limits: the stage gets the guaranteed class, the last one to be evicted.
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "work", "mountPath": WORK_FOLDER}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    if surroundings.store_secret:
        container["envFrom"] = [{"secretRef": {"name": surroundings.store_secret}}]
    return container


def _toleration(toleration: Toleration) -> dict[str, str]:
    fields = {"key": toleration.key, "operator": toleration.operator}
    fields |= {"value": toleration.value} if toleration.value is not None else {}
    return fields | ({"effect": toleration.effect} if toleration.effect is not None else {})


def _shm_bytes(resources: Resources) -> int:
    return max(MIN_SHM_BYTES, resources.memory_bytes // SHM_FRACTION)
