"""Renders both overlays offline and holds every document against the Kubernetes schema and our own rules."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCHEMA_VERSION = "1.32"
OVERLAYS = ("local", "production")
WORKLOADS = {"Deployment", "StatefulSet", "Job", "PodTemplate"}
#: Values that only a secret may hold.
SECRET_NAME = re.compile(r"password|secret_?(access)?_?key|token|postgres_url", re.IGNORECASE)
Document = dict[str, Any]


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def documents(overlay: str) -> list[Document]:
    return _render(overlay)


def _render(overlay: str) -> list[Document]:
    program = shutil.which("kustomize") or shutil.which("kubectl")
    if program is None:
        pytest.skip("neither kubectl nor kustomize is installed: the overlays are not rendered")
    verb = "build" if Path(program).name == "kustomize" else "kustomize"
    command = [program, verb, str(ROOT / "k8s" / "overlays" / overlay)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rendered.returncode == 0, rendered.stderr
    return list(yaml.safe_load_all(rendered.stdout))


def _named(documents: list[Document], kind: str, name: str) -> Document:
    return next(doc for doc in documents if (doc["kind"], doc["metadata"]["name"]) == (kind, name))


def _pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    for document in documents:
        if document["kind"] in WORKLOADS:
            template = document["template"] if document["kind"] == "PodTemplate" else document["spec"]["template"]
            yield f"{document['kind']} {document['metadata']['name']}", template["spec"]


def _containers(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    for name, pod in _pods(documents):
        yield from ((name, container) for container in [*pod.get("initContainers", []), *pod["containers"]])


def test_every_document_fits_the_kubernetes_schema_strictly(documents: list[Document]) -> None:
    for document in documents:
        kubernetes_validate.validate(document, SCHEMA_VERSION, strict=True)
    assert len(documents) > 25


def test_everything_lives_in_our_namespace_which_enforces_the_restricted_standard(documents: list[Document]) -> None:
    namespace = _named(documents, "Namespace", "mm-assets")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = {doc["metadata"].get("namespace") for doc in documents if doc["kind"] != "Namespace"}
    assert others == {"mm-assets"}


def test_no_container_is_privileged_or_runs_as_root_or_writes_to_its_root(documents: list[Document]) -> None:
    for name, pod in _pods(documents):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")), name
        assert not any("hostPath" in volume for volume in pod.get("volumes", [])), name
    for name, container in _containers(documents):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]}, name
        assert security["allowPrivilegeEscalation"] is False and not security.get("privileged"), name


def test_every_container_names_its_requests_and_limits(documents: list[Document]) -> None:
    for name, container in _containers(documents):
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), name
            if container["name"] == "stage":
                assert "ephemeral-storage" in container["resources"][kind]


def test_no_secret_is_written_down(documents: list[Document]) -> None:
    assert not [doc["metadata"]["name"] for doc in documents if doc["kind"] == "Secret"]
    for name, container in _containers(documents):
        for entry in container.get("env", []):
            assert not (SECRET_NAME.search(entry["name"]) and "value" in entry), f"{name}: {entry['name']}"
    for document in documents:
        if document["kind"] == "ConfigMap":
            assert not [key for key in document["data"] if SECRET_NAME.search(key)], document["metadata"]["name"]


def test_our_images_are_named_by_digest_and_are_what_runs_and_stages_are_launched_with(
    documents: list[Document], overlay: str
) -> None:
    images = {container["image"] for _, container in _containers(documents)}
    foreign = {image for image in images if not re.search(r"@sha256:[0-9a-f]{64}$", image)}
    assert not foreign if overlay == "production" else all(image.startswith("docker.io/") for image in foreign)
    environment = _named(documents, "ConfigMap", "mm-environment")["data"]
    assert {environment["MM_STAGE_IMAGE"], environment["MM_CODE_SERVER_IMAGE"]} == images - foreign


def test_rights_name_resources_and_verbs_and_stages_have_none(documents: list[Document]) -> None:
    for role in (doc for doc in documents if doc["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], role["metadata"]["name"]
    assert not [doc for doc in documents if doc["kind"].startswith("Cluster")]
    bound = {subject["name"] for doc in documents if doc["kind"] == "RoleBinding" for subject in doc["subjects"]}
    accounts = {doc["metadata"]["name"] for doc in documents if doc["kind"] == "ServiceAccount"}
    assert accounts - bound == {"mm-stage"}
    assert bound <= accounts


def test_the_network_is_closed_by_default_and_stages_do_not_reach_the_database(documents: list[Document]) -> None:
    policies = [doc for doc in documents if doc["kind"] == "NetworkPolicy"]
    closed = _named(policies, "NetworkPolicy", "mm-default-deny")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        ports = {port["port"] for rule in policy["spec"].get("egress", []) for port in rule["ports"]}
        if ports & {5432, 6443}:
            excluded = policy["spec"]["podSelector"]["matchExpressions"]
            assert excluded == [{"key": "app.kubernetes.io/component", "operator": "NotIn", "values": ["mm-stage"]}]


def test_every_mounted_config_map_and_service_account_exists(documents: list[Document]) -> None:
    names = {(doc["kind"], doc["metadata"]["name"]) for doc in documents}
    for name, pod in _pods(documents):
        assert ("ServiceAccount", pod.get("serviceAccountName", "mm-stage")) in names, name
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names, name


def test_the_webserver_is_not_exposed(documents: list[Document]) -> None:
    assert _named(documents, "Service", "mm-webserver")["spec"]["type"] == "ClusterIP"
    assert not [doc for doc in documents if doc["kind"] == "Ingress"]


def test_production_asks_for_gpu_nodes_and_has_quota_for_them() -> None:
    documents = _render("production")
    stages = yaml.safe_load(_named(documents, "ConfigMap", "mm-config")["data"]["resources.yaml"])
    assert {stage["accelerators"] for stage in stages.values()} == {1}
    assert all(stage["node_selector"] and stage["tolerations"] for stage in stages.values())
    quota = _named(documents, "ResourceQuota", "mm-assets")["spec"]["hard"]["requests.nvidia.com/gpu"]
    assert int(quota) >= len(stages)


def test_rendering_twice_gives_the_same_documents(overlay: str, documents: list[Document]) -> None:
    assert json.dumps(_render(overlay)) == json.dumps(documents)
