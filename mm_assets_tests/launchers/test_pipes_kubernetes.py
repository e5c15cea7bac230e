"""Launched stages in pods: real runs, the unmodified Kubernetes client over HTTP, pods as local processes."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from kubernetes.client import CoreV1Api

from mm_assets.defs.janitor import janitor_sensors, sweep_pods
from mm_assets.launchers.environment import stage_environment
from mm_assets.launchers.kubernetes.client import connect
from mm_assets.launchers.kubernetes.orphans import SELECTOR
from mm_assets.launchers.process import StageLauncher
from mm_assets.launchers.protocol import StageRequest
from mm_assets.materialize import Workspace
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref, require_ref
from mm_assets_tests.defs.launched_shard import SHARD, failure_sentence, materialize_embeddings, prepare_shard
from mm_assets_tests.process_kubelet import Fault, Pod, ProcessKubelet

NAMESPACE = "mm-test"
IMAGE = "registry.example/mm/stage@sha256:" + "1" * 64
SECRET = "unmistakable-secret"
pytestmark = pytest.mark.integration


@pytest.fixture
def kubelet() -> Iterator[ProcessKubelet]:
    with ProcessKubelet() as kubelet:
        kubelet.cluster.secrets[(NAMESPACE, "mm-store")] = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        yield kubelet


@pytest.fixture
def kubeconfig(kubelet: ProcessKubelet, tmp_path: Path) -> Path:
    return kubelet.write_kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def settings(moto_settings: Settings, tmp_path: Path) -> Settings:
    """A deployment on Kubernetes that gives its pods two seconds to start."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "resources.yaml").write_text("embeddings: {launch_deadline_s: 2}\n", encoding="utf-8")
    return replace(
        moto_settings,
        launcher="kubernetes",
        k8s_namespace=NAMESPACE,
        k8s_store_secret="mm-store",
        stage_image=IMAGE,
        config_dir=config,
        pod_name="run-pod",
        pod_uid="7c2f",
    )


@pytest.fixture
def launcher(settings: Settings, kubeconfig: Path) -> StageLauncher:
    return StageLauncher(settings, kubeconfig=kubeconfig, poll_interval_s=0.1)


@pytest.fixture
def shard(store: Store, moto_settings: Settings, push_samples: Callable[[Store, str, str], Path]) -> Partition:
    return prepare_shard(store, moto_settings, push_samples)


Materialize = Callable[[], dg.ExecuteInProcessResult]


@pytest.fixture
def materialize(
    instance: dg.DagsterInstance, settings: Settings, launcher: StageLauncher, shard: Partition
) -> Materialize:
    """Runs the shard's embeddings in a pod."""
    return lambda: materialize_embeddings(instance, settings, launcher)


def _assert_clean(store: Store, kubelet: ProcessKubelet) -> None:
    """Nothing was committed, and neither pod nor message is left."""
    assert read_ref(store, "embeddings", SHARD).ref is None
    assert list(store.list_keys("pipes/")) == []
    _assert_no_pods(kubelet)


def _assert_no_pods(kubelet: ProcessKubelet) -> None:
    deadline = time.monotonic() + 10
    while kubelet.cluster.pods and time.monotonic() < deadline:
        time.sleep(0.1)
    assert kubelet.cluster.pods == {}


def test_pod_gives_the_same_digest_as_a_process_and_leaves_nothing_behind(
    materialize: Materialize,
    kubelet: ProcessKubelet,
    store: Store,
    instance: dg.DagsterInstance,
    moto_settings: Settings,
    shard: Partition,
) -> None:
    in_pod = materialize()
    assert in_pod.success
    ref = require_ref(store, "embeddings", shard)
    assert (ref.run_id, ref.cached) == (in_pod.run_id, False)
    messages = "\n".join(entry.user_message for entry in instance.all_logs(in_pod.run_id))
    assert f"embeddings r1/0000: computed {ref.content}" in messages
    assert list(store.list_keys("pipes/")) == []
    _assert_no_pods(kubelet)
    forced = materialize_embeddings(instance, moto_settings, tags={"mm/force": "true"})
    assert forced.success
    again = require_ref(store, "embeddings", shard)
    assert (again.manifest, again.cached) == (ref.manifest, False)


def test_pod_carries_run_label_owner_deadline_and_image_and_no_secret(
    materialize: Materialize, kubelet: ProcessKubelet, instance: dg.DagsterInstance
) -> None:
    result = materialize()
    pod = kubelet.cluster.created[0]
    assert pod["metadata"]["labels"]["dagster/run-id"] == result.run_id
    assert pod["metadata"]["labels"]["mm-assets/shard"] == "0000"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "7c2f"
    assert pod["spec"]["activeDeadlineSeconds"] == 3600
    assert pod["spec"]["containers"][0]["image"] == IMAGE
    assert SECRET not in repr(pod)
    assert SECRET not in "".join(repr(entry) for entry in instance.all_logs(result.run_id))


def test_second_launch_finds_the_recorded_environment_and_starts_no_pod(
    materialize: Materialize,
    kubelet: ProcessKubelet,
    store: Store,
    moto_settings: Settings,
    launcher: StageLauncher,
    shard: Partition,
) -> None:
    assert launcher.environment(Workspace(moto_settings, store), "embeddings", "r1") is None
    assert materialize().success
    assert launcher.environment(Workspace(moto_settings, store), "embeddings", "r1") == stage_environment()
    assert materialize().success
    assert len(kubelet.cluster.created) == 1


def test_image_that_cannot_be_pulled_is_one_clear_error(
    materialize: Materialize, kubelet: ProcessKubelet, store: Store
) -> None:
    kubelet.cluster.fault = lambda pod: Fault(waiting="ImagePullBackOff")
    sentence = failure_sentence(materialize())
    assert sentence == (
        f'embeddings r1/0000: its image cannot be pulled: ImagePullBackOff: Back-off pulling image "{IMAGE}".'
    )
    _assert_clean(store, kubelet)


def test_pod_that_no_node_can_take_is_given_up_at_the_launch_deadline(
    materialize: Materialize, kubelet: ProcessKubelet, store: Store, settings: Settings
) -> None:
    assert settings.config_dir is not None
    wanted = "embeddings: {launch_deadline_s: 2, accelerators: 1}\n"
    (settings.config_dir / "resources.yaml").write_text(wanted, encoding="utf-8")
    started = time.monotonic()
    sentence = failure_sentence(materialize())
    assert sentence.startswith("embeddings r1/0000: its pod did not start within 2 s: Unschedulable: 0/1 nodes")
    assert "Insufficient nvidia.com/gpu" in sentence
    assert time.monotonic() - started < 60
    _assert_clean(store, kubelet)


def test_memory_kill_is_named_with_the_limit(materialize: Materialize, kubelet: ProcessKubelet, store: Store) -> None:
    kubelet.cluster.fault = lambda pod: Fault(oom=True)
    sentence = failure_sentence(materialize())
    assert "its container was killed for memory (OOMKilled): its limit is 4294967296 bytes" in sentence
    _assert_clean(store, kubelet)


@pytest.mark.parametrize("keeps_statuses", [True, False])
def test_eviction_is_named_with_and_without_container_statuses(
    materialize: Materialize, kubelet: ProcessKubelet, store: Store, keeps_statuses: bool
) -> None:
    kubelet.cluster.fault = lambda pod: Fault(evict=True, keeps_statuses=keeps_statuses)
    sentence = failure_sentence(materialize())
    assert "embeddings r1/0000: its pod was evicted: The node was low on resource: memory." in sentence
    _assert_clean(store, kubelet)


def test_pod_deleted_from_outside_is_named_and_its_absence_hides_nothing(
    materialize: Materialize, kubelet: ProcessKubelet, store: Store
) -> None:
    kubelet.cluster.fault = lambda pod: Fault(vanish=True)
    assert "its pod disappeared" in failure_sentence(materialize())
    _assert_clean(store, kubelet)


def test_failure_inside_the_pod_reaches_the_run_in_the_stage_s_own_words(
    materialize: Materialize, kubelet: ProcessKubelet, store: Store, shard: Partition
) -> None:
    tensors = require_ref(store, "features", shard).output("tensors.arrow")
    key = store.object_uri(tensors.digest).removeprefix(f"s3://{store.bucket}/")
    store.client.put_object(Bucket=store.bucket, Key=key, Body=b"damaged")
    sentence = failure_sentence(materialize())
    assert sentence.startswith(f"{store.object_uri(tensors.digest)}: bytes do not match their name")
    _assert_clean(store, kubelet)


def test_pod_without_credentials_still_says_why_it_failed(
    materialize: Materialize, kubelet: ProcessKubelet, store: Store
) -> None:
    kubelet.cluster.secrets[(NAMESPACE, "mm-store")] = {}
    assert "no credentials" in failure_sentence(materialize())
    _assert_clean(store, kubelet)


def test_refused_pod_is_one_clear_error(
    materialize: Materialize, kubelet: ProcessKubelet, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubelet.cluster.max_pods = 0
    sentence = failure_sentence(materialize())
    assert sentence == "embeddings r1/0000: the cluster refused its pod: 403 Forbidden exceeded quota: mm-assets."
    _assert_clean(store, kubelet)


def test_unreachable_cluster_is_one_clear_error(
    instance: dg.DagsterInstance, settings: Settings, shard: Partition, tmp_path: Path
) -> None:
    with ProcessKubelet() as gone:
        kubeconfig = gone.write_kubeconfig(tmp_path / "gone")
    launcher = StageLauncher(settings, kubeconfig=kubeconfig, poll_interval_s=0.1)
    sentence = failure_sentence(materialize_embeddings(instance, settings, launcher))
    assert sentence.startswith("embeddings r1/0000: the Kubernetes API does not answer")


def test_tag_instead_of_a_digest_is_refused_before_anything_is_launched(
    instance: dg.DagsterInstance, settings: Settings, kubeconfig: Path, kubelet: ProcessKubelet, shard: Partition
) -> None:
    tagged = replace(settings, stage_image="registry.example/mm/stage:latest")
    launcher = StageLauncher(tagged, kubeconfig=kubeconfig, poll_interval_s=0.1)
    assert "registry.example/mm/stage:latest" in failure_sentence(materialize_embeddings(instance, tagged, launcher))
    assert kubelet.cluster.created == []


@pytest.mark.parametrize("moment", ["created", "processes", "logs"])
def test_terminated_run_deletes_its_pod_at_whatever_moment_it_is_terminated(
    materialize: Materialize, kubelet: ProcessKubelet, store: Store, moment: str
) -> None:
    def terminate_once_the_pod_runs() -> None:
        while not any(getattr(kubelet.cluster, moment)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate_once_the_pod_runs, daemon=True).start()
    result = materialize()
    assert not result.success
    _assert_clean(store, kubelet)
    assert all(process.poll() is not None for process in kubelet.cluster.processes.values())


def _create_pod(api: CoreV1Api, run_id: str, name: str) -> None:
    from mm_assets.launchers.kubernetes.pod_spec import pod_labels

    labels = pod_labels(StageRequest(asset="model", release="r1", shard=None, force=False, run_id=run_id, attempt="a"))
    container = {"name": "stage", "image": IMAGE, "command": ["sleep", "300"]}
    body = {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [container], "restartPolicy": "Never"}}
    api.create_namespaced_pod(NAMESPACE, body)


def test_janitor_deletes_pods_of_finished_runs_only(
    instance: dg.DagsterInstance, settings: Settings, kubelet: ProcessKubelet, kubeconfig: Path
) -> None:
    live = instance.create_run_for_job(_empty_job(), status=dg.DagsterRunStatus.STARTED)
    done = instance.create_run_for_job(_empty_job(), status=dg.DagsterRunStatus.SUCCESS)
    api = connect(kubeconfig)
    for run_id, name in ((live.run_id, "live"), (done.run_id, "done"), ("unknown", "unknown")):
        _create_pod(api, run_id, name)
    assert sweep_pods(instance, settings, kubeconfig=kubeconfig) == ["done", "unknown"]
    pods = api.list_namespaced_pod(NAMESPACE, label_selector=SELECTOR).items
    assert [pod.metadata.name for pod in pods if not pod.metadata.deletion_timestamp] == ["live"]
    assert [sensor.name for sensor in janitor_sensors(settings)] == ["janitor"]
    assert janitor_sensors(replace(settings, launcher="subprocess")) == []


def _empty_job() -> dg.JobDefinition:
    @dg.job
    def empty() -> None:
        pass

    return empty


def test_kubelet_refuses_a_pod_with_a_field_kubernetes_does_not_know(kubeconfig: Path) -> None:
    from kubernetes.client import ApiException

    body: Pod = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "imagee": "y"}]}}
    with pytest.raises(ApiException, match="422"):
        connect(kubeconfig).create_namespaced_pod(NAMESPACE, body)
