"""The production ``dagster.yaml``: Dagster accepts it, and the jobs it makes of runs fit Kubernetes."""

from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster._core.test_utils import create_run_for_test
from dagster_k8s.job import construct_dagster_k8s_job
from dagster_k8s.launcher import K8sRunLauncher
from kubernetes.client import ApiClient

INSTANCE = Path(__file__).parents[2] / "k8s" / "base" / "instance" / "dagster.yaml"


def _environment(postgres_url: str, folder: Path) -> dict[str, str]:
    return {
        "DAGSTER_POSTGRES_URL": postgres_url,
        "MM_DAGSTER_SCRATCH": str(folder / "scratch"),
        "MM_COMPUTE_LOGS_BUCKET": "mm-assets",
        "MM_COMPUTE_LOGS_PREFIX": "compute-logs",
        "MM_K8S_NAMESPACE": "mm-assets",
        "MM_CODE_SERVER_IMAGE": "r/code-server@sha256:" + "0" * 64,
        "MM_RUN_SERVICE_ACCOUNT": "mm-run",
    }


def _set(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def _config() -> dict[str, Any]:
    return yaml.safe_load(INSTANCE.read_text(encoding="utf-8"))


def test_dagster_accepts_the_file_and_no_value_in_it_is_an_address_or_a_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _set(monkeypatch, _environment("postgresql://u:p@h/d", tmp_path))
    config, _ = dagster_instance_config(str(INSTANCE.parent))
    assert config["storage"] == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    text = INSTANCE.read_text(encoding="utf-8")
    assert "://" not in text and "password" not in text.lower()


def test_only_infrastructure_failures_are_retried_and_no_run_is_resumed() -> None:
    config = _config()
    assert config["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert config["run_monitoring"]["enabled"] and config["run_monitoring"]["max_resume_run_attempts"] == 0
    assert config["concurrency"]["pools"]["granularity"] == "run"
    assert config["telemetry"] == {"enabled": False}


def _launcher(kubeconfig: Path, folder: Path) -> K8sRunLauncher:
    """The launcher of the file, except that its credentials come from ``kubeconfig``."""
    environment = _environment("postgresql://u:p@h/d", folder)
    config = _config()["run_launcher"]["config"] | {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    references = {
        key: value["env"] for key, value in config.items() if isinstance(value, dict) and set(value) == {"env"}
    }
    return K8sRunLauncher(**config | {key: environment[name] for key, name in references.items()})


def test_the_jobs_of_runs_fit_the_kubernetes_schema_and_tell_each_run_its_own_pod(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    named = {"name": "t"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "clusters": [named | {"cluster": {"server": "http://127.0.0.1:9"}}],
                "users": [named | {"user": {}}],
                "contexts": [named | {"context": {"cluster": "t", "user": "t"}}],
                "current-context": "t",
            }
        ),
        encoding="utf-8",
    )
    launcher = _launcher(kubeconfig, tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        run = create_run_for_test(instance, job_name="j")
        context = launcher.get_container_context_for_run(run)
        job = construct_dagster_k8s_job(
            job_config=context.get_k8s_job_config(job_image=None, run_launcher=launcher),
            args=["dagster", "api", "execute_run"],
            job_name="run-x",
            pod_name="run-x",
            user_defined_k8s_config=context.run_k8s_config,
        )
    document = ApiClient().sanitize_for_serialization(job)
    kubernetes_validate.validate(document, "1.32", strict=True)
    container = document["spec"]["template"]["spec"]["containers"][0]
    fields = {
        entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"] if "valueFrom" in entry
    }
    assert fields == {"MM_POD_NAME": "metadata.name", "MM_POD_UID": "metadata.uid"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
