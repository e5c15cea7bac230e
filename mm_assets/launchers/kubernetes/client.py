"""A thin client over dagster-k8s' ``PipesK8sClient``: our deadlines, our verdicts, and no pod left behind.

The upstream client waits 24 hours for a pod that cannot be scheduled, ends with a bare ``StopIteration`` when an
evicted pod has no container status, and hides the first error behind a 404 when the pod is gone already. So the wait
happens here, before upstream's, and so does the deletion.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler
from dagster_aws.pipes import PipesS3MessageReader
from dagster_k8s import PipesK8sClient
from dagster_k8s.client import DagsterKubernetesClient
from dagster_pipes import PIPES_PROTOCOL_VERSION, PIPES_PROTOCOL_VERSION_FIELD
from kubernetes.client import ApiException
from kubernetes.config import ConfigException, load_config, load_kube_config
from urllib3.exceptions import HTTPError

from mm_assets.errors import LaunchError, MmError, StoreError
from mm_assets.launchers.kubernetes.pod_spec import LABEL_ATTEMPT, Surroundings, pod_labels, pod_metadata, pod_spec
from mm_assets.launchers.kubernetes.pod_status import Verdict, Waited, judge, waiting_reason
from mm_assets.launchers.messages import reported_failure
from mm_assets.launchers.protocol import StageRequest
from mm_assets.launchers.resources import Resources
from mm_assets.store.messages import bucket_key, delete_messages
from mm_assets.store.objects import Store

logger = logging.getLogger(__name__)

Api: TypeAlias = Any  # kubernetes.client.CoreV1Api, whose generated types say `anything` for every answer
RunContext: TypeAlias = "dg.AssetExecutionContext | dg.OpExecutionContext"

MESSAGE_INTERVAL_S = 1
API_TIMEOUT_S = 30
#: The API server may be upgraded while a stage runs.
API_GRACE_S = 180.0
LOG_LINES = 5000
#: The message with which upstream's reader stops.
CLOSED = json.dumps({PIPES_PROTOCOL_VERSION_FIELD: PIPES_PROTOCOL_VERSION, "method": "closed", "params": {}})


class StoreMessageReader(PipesS3MessageReader):
    """Messages through the store, below a prefix of the run, deleted once the session is over.

    Upstream waits ten seconds for the last message of a worker that will send none. Here the end of the pod is known,
    and S3 lists what was written before it, so a message missing after that will never come.
    """

    #: Called when the session's body is over, however it ended, and before the last messages are waited for.
    before_close: Callable[[], None]

    def __init__(self, store: Store, prefix: str) -> None:
        super().__init__(interval=MESSAGE_INTERVAL_S, bucket=store.bucket, client=store.client)
        self.before_close = lambda: None
        self._store = store
        self._prefix = prefix
        self._handler: PipesMessageHandler | None = None
        self._pod_ended = threading.Event()

    @contextmanager
    def get_params(self) -> Generator[Mapping[str, Any]]:
        """Where the worker writes."""
        yield {"bucket": self._store.bucket, "key_prefix": bucket_key(self._store, self._prefix)}

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Generator[Mapping[str, Any]]:
        """Reads until the worker closed its side or the session is over."""
        self._handler = handler
        try:
            with super().read_messages(handler) as params:
                try:
                    yield params
                finally:
                    self.before_close()
        finally:
            try:
                delete_messages(self._store, self._prefix)
            except MmError as error:
                # Leftovers do no harm and must not hide how the stage ended.
                logger.warning("%s", error)

    def messages_are_readable(self, params: Mapping[str, Any]) -> bool:
        """Always: a chunk that is not there yet is simply not there yet."""
        return True

    def download_messages_chunk(self, index: int, params: Mapping[str, Any]) -> str | None:
        """The chunk, None if it was not written yet, or an end if it never will be."""
        has_ended = self._pod_ended.is_set()
        try:
            chunk = self._store.read_key(f"{self._prefix}/{index}.json")
        except StoreError as error:
            logger.warning("%s", error)
            return None
        if chunk is not None:
            return chunk.data.decode()
        return CLOSED if has_ended else None

    def pod_ended(self) -> None:
        """No further message will be written."""
        self._pod_ended.set()

    def reported_error(self) -> MmError | None:
        """The error the worker sent before it ended, if it did."""
        return reported_failure(self._handler.get_custom_messages()) if self._handler else None

    def no_messages_debug_text(self) -> str:
        """Where messages were looked for."""
        return f"Looked for messages below {self._store.uri(self._prefix)}."


class StagePods(PipesK8sClient):
    """Runs one stage in a pod and removes the pod, whatever happens."""

    def __init__(
        self,
        request: StageRequest,
        resources: Resources,
        *,
        message_reader: StoreMessageReader,
        kubeconfig: Path | None,
        poll_interval_s: float,
    ) -> None:
        super().__init__(
            message_reader=message_reader,
            kubeconfig_file=str(kubeconfig) if kubeconfig else None,
            poll_interval=poll_interval_s,
        )
        self._request = request
        self._resources = resources
        self._reader = message_reader
        self._kubeconfig = kubeconfig
        self._log: list[str] = []

    def run_stage(self, context: RunContext, surroundings: Surroundings, namespace: str) -> None:
        """Creates the pod, waits for its end and deletes it.

        Raises:
            MmError: what the stage failed with, of the same class as in the pod.
            LaunchError: the pod could not be created, never started, was taken away, or died.
        """
        # The session's end is the one place that no interruption jumps over, from the creation of the pod on.
        self._reader.before_close = lambda: self._delete_pods(context, namespace)
        try:
            self.run(
                context=context,
                namespace=namespace,
                base_pod_meta=pod_metadata(self._request, surroundings),
                base_pod_spec=pod_spec(self._request, self._resources, surroundings),
                delete_pod_on_completion=False,
            )
        except ApiException as error:
            raise LaunchError(f"{self._request.name}: the cluster refused its pod: {api_sentence(error)}.") from error
        except (HTTPError, ConfigException) as error:
            raise LaunchError(f"{self._request.name}: the Kubernetes API does not answer: {error}.") from error
        except _StageFailed as failed:
            # By now the session is closed and every message that the pod sent was read.
            raise self._error(failed.verdict) from None

    @contextmanager
    def consume_pod_logs(
        self,
        context: RunContext,
        client: DagsterKubernetesClient,
        namespace: str,
        pod_name: str,
        enable_multi_container_logs: bool = False,
        ignore_containers: set[str] | None = None,
    ) -> Generator[None]:
        """Upstream's hook between creating the pod and waiting for it: here our own wait and clean-up happen."""
        api = client.core_api
        context.log.info("%s: created pod %s/%s", self._request.name, namespace, pod_name)
        verdict = self._wait(context, api, namespace, pod_name)
        self._reader.pod_ended()
        self._log = self._forward_logs(context, api, namespace, pod_name)
        if not verdict.is_success:
            raise _StageFailed(verdict)
        yield

    def _wait(self, context: RunContext, api: Api, namespace: str, pod_name: str) -> Verdict:
        created = stuck = heard = time.monotonic()
        running: float | None = None
        reason = ""
        while True:
            now = time.monotonic()
            try:
                pod = read_pod(api, namespace, pod_name)
                heard = now
            except (ApiException, HTTPError) as error:
                if now - heard > API_GRACE_S:
                    raise
                context.log.warning("%s: the Kubernetes API did not answer: %s", pod_name, error)
                time.sleep(self.poll_interval)
                continue
            if pod is not None and (current := waiting_reason(pod)) != reason:
                reason, stuck = current, now
                context.log.info("%s: %s", pod_name, reason or "running")
            if pod is not None and not reason:
                running = running or now
            waited = Waited(created_s=now - created, stuck_s=now - stuck, running_s=now - running if running else 0.0)
            verdict = judge(pod, self._resources, waited)
            if verdict is not None:
                return verdict
            time.sleep(self.poll_interval)

    def _forward_logs(self, context: RunContext, api: Api, namespace: str, pod_name: str) -> list[str]:
        """Copies the pod's log to this process's stderr, which the run keeps, and returns its lines."""
        try:
            answer = api.read_namespaced_pod_log(
                pod_name, namespace, tail_lines=LOG_LINES, _preload_content=False, _request_timeout=API_TIMEOUT_S
            )
            text = answer.data.decode("utf-8", errors="replace")
        except (ApiException, HTTPError) as error:
            context.log.debug("%s: its log is not available: %s", pod_name, error)
            return []
        sys.stderr.write(text)
        return [line for line in text.splitlines() if line.strip()]

    def _delete_pods(self, context: RunContext, namespace: str) -> None:
        """Deletes what this attempt created, found by its label: the answer to the creation may have been lost."""
        selector = f"{LABEL_ATTEMPT}={pod_labels(self._request)[LABEL_ATTEMPT]}"
        try:
            api = connect(self._kubeconfig)
            for pod in list_pods(api, namespace, selector):
                delete_pod(api, namespace, pod["metadata"]["name"], context.log.warning)
        except (ApiException, HTTPError, ConfigException) as error:
            context.log.warning("%s: a pod it may have created is left to the janitor: %s", self._request.name, error)

    def _error(self, verdict: Verdict) -> MmError:
        """What the worker said where it had the last word, else what happened to its pod."""
        if verdict.code == "exit":
            said = self._reader.reported_error() or _printed_error(self._log)
            if said is not None:
                return said
        last = f" Its last line was: {self._log[-1]}" if self._log else ""
        return LaunchError(f"{self._request.name}: {verdict.sentence}.{last}")


class _StageFailed(Exception):
    """Ends the session of a pod that will not succeed."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.sentence)
        self.verdict = verdict


def _printed_error(lines: list[str]) -> LaunchError | None:
    """The sentence a worker printed that could not even open its messages."""
    prefix = "error: "
    found = next((line for line in reversed(lines) if line.startswith(prefix)), None)
    return LaunchError(found.removeprefix(prefix)) if found else None


def connect(kubeconfig: Path | None) -> Api:
    """The cluster's API: by ``kubeconfig``, else as the pod this process runs in, else as the user."""
    if kubeconfig:
        load_kube_config(config_file=str(kubeconfig))
    else:
        load_config()
    return DagsterKubernetesClient.production_client().core_api


def list_pods(api: Api, namespace: str, selector: str) -> list[Mapping[str, Any]]:
    """The pods with these labels, as the API's JSON."""
    pods = api.list_namespaced_pod(namespace, label_selector=selector, _request_timeout=API_TIMEOUT_S).items
    return api.api_client.sanitize_for_serialization(pods)


def read_pod(api: Api, namespace: str, name: str) -> Mapping[str, Any] | None:
    """The pod as the API's JSON, None if it does not exist."""
    try:
        pod = api.read_namespaced_pod(name, namespace, _request_timeout=API_TIMEOUT_S)
    except ApiException as error:
        if error.status == 404:
            return None
        raise
    return api.api_client.sanitize_for_serialization(pod)


def delete_pod(api: Api, namespace: str, name: str, warn: Callable[[str], None]) -> None:
    """Deletes the pod if it still exists; a failure to do so is left to the janitor and never hides another error."""
    try:
        api.delete_namespaced_pod(name, namespace, _request_timeout=API_TIMEOUT_S)
    except ApiException as error:
        if error.status != 404:
            warn(f"pod {namespace}/{name}: could not be deleted: {api_sentence(error)}. The janitor will.")
    except HTTPError as error:
        warn(f"pod {namespace}/{name}: could not be deleted: {error}. The janitor will.")


def api_sentence(error: ApiException) -> str:
    """Status, reason and message of an API error on one line, without its headers."""
    message = ""
    with suppress(ValueError, TypeError, AttributeError):
        message = str(json.loads(str(error.body)).get("message") or "")
    return " ".join(f"{error.status} {error.reason or ''} {message}".split()).rstrip(".")
