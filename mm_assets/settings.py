"""The only reader of the environment: where things are, never what is computed.

Nothing here enters a fingerprint. A missing ``MM_STORE_URI`` means the embedded store under ``MM_HOME``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mm_assets.errors import SettingsError

#: Configuration files of this version.
PACKAGED_CONFIG = Path(__file__).parent / "config"
LAUNCHERS = ("subprocess", "kubernetes")
MAX_SHARDS = 10_000
MAX_PARALLEL = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One process's view of its environment; build it with ``read_settings``.

    ``store_uri`` and ``s3_endpoint`` are None when unset; ``config_dir`` is where a data owner's suites and
    policies override the packaged ones. ``pod_name`` and ``pod_uid`` name the pod this process runs in, if any;
    ``cpu_capability`` is what torch was told to use instead of what the processor offers; ``parallel`` is how many
    shards ``mm run`` works on at a time.
    """

    store_uri: str | None
    s3_endpoint: str | None
    num_shards: int
    launcher: str
    config_dir: Path | None
    home: Path
    dagster_home: Path
    world_size: int
    k8s_namespace: str
    stage_image: str | None
    alert_webhook: str | None
    k8s_service_account: str = "mm-stage"
    k8s_store_secret: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = None
    cpu_capability: str | None = None
    parallel: int = 1

    @property
    def is_embedded(self) -> bool:
        """Whether the store is the S3 server under ``home`` rather than a configured one."""
        return self.store_uri is None

    def config_file(self, name: str) -> Path:
        """The file ``name`` of ``MM_CONFIG_DIR``, or the packaged one where the team has none of its own."""
        own = self.config_dir / name if self.config_dir else None
        return own if own is not None and own.is_file() else PACKAGED_CONFIG / name

    def bucket_and_prefix(self) -> tuple[str, str]:
        """Bucket and key prefix (without slashes at its ends) of ``store_uri``.

        Raises:
            SettingsError: ``store_uri`` is not ``s3://bucket[/prefix]``.
        """
        try:
            parts = urlsplit(self.store_uri or "")
        except ValueError:
            parts = urlsplit("")
        if parts.scheme != "s3" or not parts.netloc:
            raise SettingsError(f"MM_STORE_URI: is malformed: expected s3://bucket/prefix, got {self.store_uri!r}.")
        return parts.netloc, parts.path.strip("/")


def worker_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the variables that make a worker process read the same settings."""
    own = {
        "MM_STORE_URI": settings.store_uri,
        "MM_S3_ENDPOINT": settings.s3_endpoint,
        "MM_NUM_SHARDS": str(settings.num_shards),
        "MM_CONFIG_DIR": str(settings.config_dir) if settings.config_dir else None,
        "MM_HOME": str(settings.home),
        "MM_WORLD_SIZE": str(settings.world_size),
    }
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    return inherited | {name: value for name, value in own.items() if value is not None}


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings of this process, or of the given environment.

    Raises:
        SettingsError: a variable has an unusable value.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("MM_HOME") or ".mm").absolute()
    launcher = env.get("MM_LAUNCHER") or "subprocess"
    if launcher not in LAUNCHERS:
        raise SettingsError(f"MM_LAUNCHER: is unknown: expected one of {', '.join(LAUNCHERS)}, got {launcher!r}.")
    config_dir = env.get("MM_CONFIG_DIR")
    return Settings(
        store_uri=env.get("MM_STORE_URI") or None,
        s3_endpoint=env.get("MM_S3_ENDPOINT") or None,
        num_shards=_bounded_int(env, "MM_NUM_SHARDS", default=4, maximum=MAX_SHARDS),
        launcher=launcher,
        config_dir=Path(config_dir).absolute() if config_dir else None,
        home=home,
        dagster_home=Path(env.get("DAGSTER_HOME") or home / "dagster").absolute(),
        world_size=_bounded_int(env, "MM_WORLD_SIZE", default=min(4, os.cpu_count() or 1), maximum=1024),
        k8s_namespace=env.get("MM_K8S_NAMESPACE") or "mm-assets",
        stage_image=env.get("MM_STAGE_IMAGE") or None,
        alert_webhook=env.get("MM_ALERT_WEBHOOK") or None,
        k8s_service_account=env.get("MM_K8S_SERVICE_ACCOUNT") or "mm-stage",
        k8s_store_secret=env.get("MM_K8S_STORE_SECRET") or None,
        pod_name=env.get("MM_POD_NAME") or None,
        pod_uid=env.get("MM_POD_UID") or None,
        cpu_capability=env.get("ATEN_CPU_CAPABILITY") or None,
        parallel=_bounded_int(env, "MM_PARALLEL", default=os.cpu_count() or 1, maximum=MAX_PARALLEL),
    )


def _bounded_int(env: Mapping[str, str], name: str, *, default: int, maximum: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= maximum:
        raise SettingsError(f"{name}: is unusable: expected a whole number from 1 to {maximum}, got {text!r}.")
    return int(text)
