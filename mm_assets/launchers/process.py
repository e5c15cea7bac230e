"""The launcher: runs a GPU stage in a process of its own, or in a pod, and turns its failure into one sentence.

Both launchers run the same entrypoint under Dagster Pipes. What the worker commits goes to the store; messages carry
only progress and the sentence of a failure, so a worker that dies silently loses nothing.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import dagster as dg
from dagster import PipesTempFileContextInjector, PipesTempFileMessageReader, open_pipes_session
from dagster._core.pipes.context import PipesMessageHandler

from mm_assets.errors import LaunchError
from mm_assets.identity.canonical import Json
from mm_assets.launchers.environment import known_environment, stage_environment
from mm_assets.launchers.kubernetes.pod_spec import placement_of, surroundings_of
from mm_assets.launchers.messages import reported_failure
from mm_assets.launchers.protocol import StageRequest
from mm_assets.launchers.resources import resources_for
from mm_assets.materialize import Workspace
from mm_assets.releases.spec import read_spec
from mm_assets.settings import Settings, worker_environment
from mm_assets.store.embedded import ensure_running
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import open_store

RunContext: TypeAlias = "dg.AssetExecutionContext | dg.OpExecutionContext"

POLL_INTERVAL_S = 5.0
TERMINATION_TIMEOUT_S = 20


class StageLauncher:
    """Runs launched stages as ``settings.launcher`` says; a Dagster resource.

    Args:
        settings: Where the store and the cluster are.
        kubeconfig: Credentials of the cluster; by default those of the pod this process runs in, or of the user.
        poll_interval_s: Seconds between two looks at a pod.
    """

    def __init__(
        self, settings: Settings, *, kubeconfig: Path | None = None, poll_interval_s: float = POLL_INTERVAL_S
    ) -> None:
        self._settings = settings
        self._kubeconfig = kubeconfig
        self._poll_interval_s = poll_interval_s

    def environment(self, workspace: Workspace, asset_name: str, release: str) -> dict[str, Json] | None:
        """Environment identity of the worker that would run the asset; None if no such pod has run yet.

        Raises:
            ObjectMissingError: the release does not exist.
        """
        resources = resources_for(asset_name, workspace.spec(release).configuration, self._settings)
        if self._settings.launcher == "subprocess":
            return stage_environment(resources.accelerators)
        return known_environment(workspace.store, placement_of(resources, surroundings_of(self._settings)))

    def run(self, context: RunContext, asset_name: str, partition: Partition, *, force: bool) -> None:
        """Materializes one partition in a worker; once it returns, the worker has committed.

        Raises:
            MmError: what the worker failed with, of the same class as in the worker.
            LaunchError: the worker never ran, died, or failed with an error that is not an ``MmError``.
            SettingsError: the environment does not say how to launch. SpecError: the resources are unusable.
        """
        request = StageRequest(
            asset=asset_name,
            release=partition.release,
            shard=partition.shard,
            force=force,
            run_id=context.run_id,
            attempt=uuid.uuid4().hex,
        )
        launch = self._run_pod if self._settings.launcher == "kubernetes" else self._run_process
        launch(context, request)

    def _run_process(self, context: RunContext, request: StageRequest) -> None:
        workspace = Workspace(self._settings)
        resources = resources_for(request.asset, workspace.spec(request.release).configuration, self._settings)
        environment = worker_environment(self._settings) | {"MM_ACCELERATORS": str(resources.accelerators)}
        if self._settings.is_embedded:
            environment |= ensure_running(self._settings.home).environment()
        reader = _ProcessMessageReader()
        with open_pipes_session(
            context=context, context_injector=PipesTempFileContextInjector(), message_reader=reader
        ) as session:
            status = _run_group(request.command(sys.executable), environment | dict(session.get_bootstrap_env_vars()))
        if status != 0:
            said = reported_failure(reader.handler.get_custom_messages()) if reader.handler else None
            raise said or LaunchError(f"{request.name}: {_exit_sentence(status)}.")

    def _run_pod(self, context: RunContext, request: StageRequest) -> None:
        # Imported here: the Kubernetes client takes a second to import, and one machine needs none.
        from mm_assets.launchers.kubernetes.client import StagePods, StoreMessageReader

        surroundings = surroundings_of(self._settings)
        store = open_store(self._settings)
        resources = resources_for(request.asset, read_spec(store, request.release).configuration, self._settings)
        request = replace(request, placement=placement_of(resources, surroundings))
        pods = StagePods(
            request,
            resources,
            message_reader=StoreMessageReader(store, request.messages_prefix),
            kubeconfig=self._kubeconfig,
            poll_interval_s=self._poll_interval_s,
        )
        pods.run_stage(context, surroundings, self._settings.k8s_namespace)


class _ProcessMessageReader(PipesTempFileMessageReader):
    """Keeps its handler, so that what the worker said can be read after the session."""

    handler: PipesMessageHandler | None = None

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Generator[Mapping[str, Any]]:
        """Reads until the session is over."""
        self.handler = handler
        with super().read_messages(handler) as params:
            yield params


def _run_group(command: list[str], environment: Mapping[str, str]) -> int:
    """Runs a command in a process group of its own and returns its exit status.

    Its output goes where this process's goes, which the run keeps. If this process is interrupted (the run was
    terminated), the whole group ends before the interruption goes on.
    """
    process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        _end_group(process)
        raise


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=TERMINATION_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _exit_sentence(status: int) -> str:
    if status < 0:
        return f"its worker process was killed by {signal.Signals(-status).name}. Read the run's stderr"
    return f"its worker process ended with exit status {status}. Read the run's stderr"
