"""A one-node Kubernetes for tests: the pod API over HTTP, each pod's command run as a local process.

It speaks enough of the API for the unmodified ``kubernetes`` client: create, read, list (field and label selectors),
delete and log of pods, and secrets for ``envFrom``. It schedules by node labels and accelerators, checks every pod
against the Kubernetes schema, honours ``activeDeadlineSeconds``, the termination grace period and the working folder of
an ``emptyDir``, and gives a process exactly the environment its pod declares. Faults are injected per pod with
``Fault``; what a fault does to a status is what a real kubelet was seen to write.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

SCHEMA_VERSION = "1.32"
GPU = "nvidia.com/gpu"
_PATH = re.compile(
    r"/api/v1/namespaces/(?P<namespace>[^/]+)/(?P<kind>pods|secrets|events)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)
Pod = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with a pod.

    ``waiting`` keeps its container from starting, with that reason. The others strike when its process prints a line
    containing ``on_line``: ``oom`` kills it as the kernel does; ``evict`` kills it as a kubelet under pressure does,
    with or without container statuses left; ``vanish`` removes the pod from the API.
    """

    waiting: str | None = None
    oom: bool = False
    evict: bool = False
    keeps_statuses: bool = False
    vanish: bool = False
    on_line: str = "started"


@dataclass
class Node:
    """The only node: its labels and how many accelerators it has."""

    labels: dict[str, str] = field(default_factory=dict)
    accelerators: int = 0


@dataclass
class Cluster:
    """State of the API server and of the processes behind it."""

    node: Node = field(default_factory=Node)
    fault: Callable[[Pod], Fault | None] = lambda pod: None
    max_pods: int = 100
    pods: dict[tuple[str, str], Pod] = field(default_factory=dict)
    created: list[Pod] = field(default_factory=list)
    secrets: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    logs: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)
    processes: dict[tuple[str, str], subprocess.Popen[bytes]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def set_status(self, key: tuple[str, str], **status: object) -> None:
        with self.lock:
            if key in self.pods:
                self.pods[key]["status"] = {"startTime": _now(), **status}

    def create_pod(self, namespace: str, pod: Pod) -> Pod:
        """Stores a valid pod and starts it.

        Raises:
            ValueError: the pod does not fit the Kubernetes schema.
        """
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod"} | pod, SCHEMA_VERSION, strict=True)
        pod["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        pod["status"] = {"phase": "Pending"}
        key = (namespace, pod["metadata"]["name"])
        with self.lock:
            self.pods[key] = pod
            self.created.append(pod)
        threading.Thread(target=self._run, args=(key, pod), daemon=True).start()
        return pod

    def delete_pod(self, key: tuple[str, str]) -> Pod | None:
        """Marks the pod as terminating, ends its process and forgets it."""
        with self.lock:
            pod = self.pods.get(key)
            if pod is None:
                return None
            pod["metadata"]["deletionTimestamp"] = _now()
            process = self.processes.get(key)
        if process is None or process.poll() is not None:
            self._forget(key)
        else:
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
            threading.Thread(target=self._terminate, args=(key, process, grace), daemon=True).start()
        return pod

    def _terminate(self, key: tuple[str, str], process: subprocess.Popen[bytes], grace_s: float) -> None:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_s)
        _signal_group(process, signal.SIGKILL)
        self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        with self.lock:
            self.pods.pop(key, None)

    def _run(self, key: tuple[str, str], pod: Pod) -> None:
        container = pod["spec"]["containers"][0]
        fault = self.fault(pod) or Fault()
        unschedulable = self._unschedulable(pod)
        if unschedulable:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
            return self.set_status(key, phase="Pending", conditions=[condition])
        if fault.waiting:
            waiting = {"reason": fault.waiting, "message": f'Back-off pulling image "{container["image"]}"'}
            return self.set_status(key, phase="Pending", containerStatuses=[_container(container, waiting=waiting)])
        creating = _container(container, waiting={"reason": "ContainerCreating"})
        self.set_status(key, phase="Pending", containerStatuses=[creating])
        with tempfile.TemporaryDirectory(prefix="kubelet-") as folder:
            return self._run_container(key, pod, fault, Path(folder))

    def _unschedulable(self, pod: Pod) -> str | None:
        selector = pod["spec"].get("nodeSelector") or {}
        if not selector.items() <= self.node.labels.items():
            return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        wanted = int(pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get(GPU, 0))
        return f"0/1 nodes are available: 1 Insufficient {GPU}." if wanted > self.node.accelerators else None

    def _run_container(self, key: tuple[str, str], pod: Pod, fault: Fault, folder: Path) -> None:
        container = pod["spec"]["containers"][0]
        process = subprocess.Popen(
            container["command"] + container.get("args", []),
            env=self._environment(key[0], container, folder),
            cwd=_mounted(container.get("workingDir", "/"), container, folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with self.lock:
            self.processes[key], self.logs[key] = process, []
            is_gone = key not in self.pods
        if is_gone:
            # Deleted while its container was being made: it ends at once, as on a node.
            _signal_group(process, signal.SIGKILL)
        running = _container(container, running={"startedAt": _now()}, ready=True)
        self.set_status(key, phase="Running", containerStatuses=[running])
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            _signal_group(process, signal.SIGKILL)

        deadline = threading.Timer(pod["spec"].get("activeDeadlineSeconds", 3600), end)
        deadline.start()
        struck = self._pump(key, process, fault)
        status = process.wait()
        deadline.cancel()
        self._record_end(key, container, fault if struck else Fault(), 128 - status if status < 0 else status, overdue)

    def _environment(self, namespace: str, container: Pod, folder: Path) -> dict[str, str]:
        environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        for source in container.get("envFrom", []):
            environment |= self.secrets[(namespace, source["secretRef"]["name"])]
        declared = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
        return environment | {name: _mounted(value, container, folder) for name, value in declared.items()}

    def _pump(self, key: tuple[str, str], process: subprocess.Popen[bytes], fault: Fault) -> bool:
        """Collects the process's output until it ends; True if the fault struck meanwhile."""
        struck = False
        assert process.stdout is not None
        for line in process.stdout:
            self.logs[key].append(line)
            if (fault.oom or fault.evict or fault.vanish) and not struck and fault.on_line.encode() in line:
                struck = True
                _signal_group(process, signal.SIGKILL)
        return struck

    def _record_end(
        self, key: tuple[str, str], container: Pod, fault: Fault, status: int, overdue: threading.Event
    ) -> None:
        reason = "OOMKilled" if fault.oom else "Completed" if status == 0 else "Error"
        ended = _container(container, terminated={"exitCode": status, "reason": reason, "finishedAt": _now()})
        if fault.vanish:
            return self._forget(key)
        if fault.evict:
            statuses = {"containerStatuses": [ended]} if fault.keeps_statuses else {}
            message = "The node was low on resource: memory."
            return self.set_status(key, phase="Failed", reason="Evicted", message=message, **statuses)
        if overdue.is_set():
            message = "Pod was active on the node longer than the specified deadline"
            return self.set_status(key, phase="Failed", reason="DeadlineExceeded", message=message)
        return self.set_status(key, phase="Failed" if status else "Succeeded", containerStatuses=[ended])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the tests' own output is enough."""

    def do_GET(self) -> None:
        cluster, match, query = self._route()
        if match is None:
            return self._answer_error(404, "NotFound", self.path)
        key = (match["namespace"], match["name"])
        if match["log"]:
            return self._answer_log(cluster, key, query)
        if match["kind"] == "events":
            return self._answer(200, {"kind": "EventList", "apiVersion": "v1", "items": []})
        if match["name"]:
            return self._answer_pod(cluster.pods.get(key), key)
        with cluster.lock:
            pods = [pod for (namespace, _), pod in cluster.pods.items() if namespace == match["namespace"]]
            items = [pod for pod in pods if _selected(pod, query)]
            return self._answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    def do_POST(self) -> None:
        cluster, match, _ = self._route()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if match is None:
            return self._answer_error(404, "NotFound", self.path)
        if match["kind"] == "secrets":
            cluster.secrets[(match["namespace"], body["metadata"]["name"])] = body["stringData"]
            return self._answer(201, body)
        if len(cluster.pods) >= cluster.max_pods:
            return self._answer_error(403, "Forbidden", "exceeded quota: mm-assets")
        if (match["namespace"], body["metadata"]["name"]) in cluster.pods:
            return self._answer_error(409, "AlreadyExists", f'pods "{body["metadata"]["name"]}" already exists')
        try:
            return self._answer(201, cluster.create_pod(match["namespace"], body))
        except kubernetes_validate.ValidationError as error:
            return self._answer_error(422, "Invalid", str(error))

    def do_DELETE(self) -> None:
        cluster, match, _ = self._route()
        if match is None:
            return self._answer_error(404, "NotFound", self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = (match["namespace"], match["name"])
        return self._answer_pod(cluster.delete_pod(key), key)

    def _route(self) -> tuple[Cluster, re.Match[str] | None, dict[str, str]]:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return self.server.cluster, _PATH.fullmatch(parts.path), query

    def _answer_log(self, cluster: Cluster, key: tuple[str, str], query: dict[str, str]) -> None:
        if key not in cluster.pods:
            return self._answer_error(404, "NotFound", f'pods "{key[1]}" not found')
        if key not in cluster.logs:
            return self._answer_error(400, "BadRequest", f'container in pod "{key[1]}" is waiting to start')
        lines = cluster.logs[key][-int(query.get("tailLines", "1000000")) :]
        return self._answer_bytes(200, "text/plain", b"".join(lines))

    def _answer_pod(self, pod: Pod | None, key: tuple[str, str]) -> None:
        if pod is None:
            return self._answer_error(404, "NotFound", f'pods "{key[1]}" not found')
        return self._answer(200, {"kind": "Pod", "apiVersion": "v1"} | pod)

    def _answer_error(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
        self._answer(code, status | {"code": code})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        self._answer_bytes(code, "application/json", json.dumps(body).encode())

    def _answer_bytes(self, code: int, kind: str, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster


class ProcessKubelet:
    """A running cluster; a context manager."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self._server = _Server(self.cluster)

    def __enter__(self) -> "ProcessKubelet":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.cluster.processes.values():
            if process.poll() is None:
                _signal_group(process, signal.SIGKILL)
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def write_kubeconfig(self, path: Path) -> Path:
        """Writes the credentials file of this cluster."""
        named = {"name": "test"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [named | {"cluster": {"server": self.url}}],
            "users": [named | {"user": {}}],
            "contexts": [named | {"context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path


def _container(container: Pod, *, ready: bool = False, **state: object) -> Pod:
    names = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return names | {"ready": ready, "state": state}


def _mounted(text: str, container: Pod, folder: Path) -> str:
    """``text`` with the mount point of the work volume replaced by the folder that stands for it."""
    for mount in container.get("volumeMounts", []):
        place = folder / mount["name"]
        if text == mount["mountPath"] or text.startswith(mount["mountPath"] + "/"):
            place.mkdir(exist_ok=True)
            return str(place) + text.removeprefix(mount["mountPath"])
    return text


def _selected(pod: Pod, query: dict[str, str]) -> bool:
    fields = _selector(query.get("fieldSelector", ""))
    labels = _selector(query.get("labelSelector", ""))
    is_named = fields.get("metadata.name", pod["metadata"]["name"]) == pod["metadata"]["name"]
    return is_named and labels.items() <= (pod["metadata"].get("labels") or {}).items()


def _selector(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if part)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
