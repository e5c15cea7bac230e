"""The only reader of the environment: where things are, never what is computed.

Nothing here enters a fingerprint. A missing ``MM_STORE_URI`` means the embedded store under ``MM_HOME``. Variables with
that make a math library compute in another way are removed from every process that computes: what
remains of the environment changes no byte, or is in the environment identity (``ATEN_CPU_CAPABILITY`` is).
"""

import getpass
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mm_assets.errors import SettingsError

#: Configuration files of this version.
PACKAGED_CONFIG = Path(__file__).parent / "config"
LAUNCHERS = ("subprocess", "kubernetes")
#: Partitions of an asset that Dagster can hold; keys beyond 9999 have five digits.
MAX_SHARDS = 100_000
MAX_PARALLEL = 1024
MAX_PROCESSES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class MathMode:
    """Variables that a math library reads to decide how it computes.

    Attributes:
        names: The variables; one that ends in ``*`` stands for all that begin so.
        reader: The module that reads them when it is loaded or first used; empty if they are read at every call.
        reason: What they change.
    """

    names: tuple[str, ...]
    reader: str
    reason: str

    def covers(self, variable: str) -> bool:
        """Whether ``variable`` is one of these."""
        return any(variable.startswith(name[:-1]) if name.endswith("*") else variable == name for name in self.names)


#: Never inherited. Whole families where a library has many, so that a new version's new switch is covered.
MATH_MODES = (
    MathMode(names=("MKL_*",), reader="torch", reason="CBWR, ENABLE_INSTRUCTIONS and DEBUG_CPU_TYPE choose kernels of "
             "matrix products; NUM_THREADS, DYNAMIC and NUM_STRIPES choose how sums are split"),
    MathMode(names=("ONEDNN_*", "DNNL_*"), reader="torch", reason="MAX_CPU_ISA and CPU_ISA_HINTS choose kernels of "
             "convolutions and products, DEFAULT_FPMATH_MODE their precision"),
    MathMode(names=("FBGEMM_*",), reader="torch", reason="chooses kernels of quantised and embedding operations"),
    MathMode(names=("TORCH_MKLDNN_MATMUL_*", "TORCH_LINEAR_FLATTEN_3D"), reader="torch",
             reason="choose the library that multiplies"),
    MathMode(names=("OMP_DYNAMIC", "OMP_THREAD_LIMIT", "OMP_SCHEDULE", "OMP_NESTED", "OMP_MAX_ACTIVE_LEVELS"),
             reader="torch", reason="give kernels other threads than were asked for: they then sum in another order"),
    MathMode(names=("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"), reader="torch",
             reason="switch the precision of products on GPUs"),
    MathMode(names=("CUBLAS_*", "CUBLASLT_*", "CUDNN_*", "TORCH_CUDNN_*", "TORCH_BLAS_*", "TORCH_LINALG_*",
                    "DISABLE_ADDMM_*"), reader="torch", reason="choose libraries, kernels and workspaces on GPUs"),
    MathMode(names=("OPENBLAS_*", "GOTO_NUM_THREADS"), reader="numpy",
             reason="choose kernels, block sizes and threads of numpy's matrix products"),
    MathMode(names=("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"), reader="numpy",
             reason="choose numpy's kernels; no other bits were measured so far"),
    MathMode(names=("ARROW_USER_SIMD_LEVEL",), reader="pyarrow", reason="chooses kernels of Arrow's sums"),
    MathMode(names=("SOXR_*",), reader="", reason="USE_SIMD, USE_SIMD32 and USE_SIMD64 choose the resampler's "
             "kernels, the others its filter"),
)  # fmt: skip
#: Set by us: torch's deterministic class demands one of two workspaces on CUDA.
MATH_SETTINGS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One process's view of its environment; build it with ``read_settings``.

    ``store_uri`` and ``s3_endpoint`` are None when unset; ``config_dir`` is where a data owner's suites and
    policies override the packaged ones. ``pod_name`` and ``pod_uid`` name the pod this process runs in, if any;
    ``cpu_capability`` is what torch was told to use instead of what the processor offers; ``parallel`` is how many
    shards ``mm run`` works on at a time; ``accelerators`` and
    ``cpus`` are how many the launcher gave this process, and ``world_size`` how many processes should train, None where
    that follows from them; ``raw_buckets`` are the buckets besides the store's with raw data.
    """

    store_uri: str | None
    s3_endpoint: str | None
    num_shards: int
    launcher: str
    config_dir: Path | None
    home: Path
    dagster_home: Path
    world_size: int | None
    k8s_namespace: str
    stage_image: str | None
    alert_webhook: str | None
    k8s_service_account: str = "mm-stage"
    k8s_store_secret: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = None
    cpu_capability: str | None = None
    accelerators: int = 0
    cpus: int = 1
    parallel: int = 1
    raw_buckets: tuple[str, ...] = ()

    @property
    def is_embedded(self) -> bool:
        """Whether the store is the S3 server under ``home`` rather than a configured one."""
        return self.store_uri is None

    def given(self) -> dict[str, int]:
        """What this process may use, as a job's placement has it."""
        given = {"accelerators": self.accelerators, "cpus": self.cpus}
        return given if self.world_size is None else {**given, "world_size": self.world_size}

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


def without_math_modes(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` with no variable that makes a math library compute in another way than ours."""
    return {name: value for name, value in environ.items() if _math_mode(name) is None} | MATH_SETTINGS


def clean_environment() -> dict[str, str]:
    """This process's environment for one that computes: without inherited math modes."""
    return without_math_modes(os.environ)


def clear_math_modes() -> None:
    """Removes inherited math modes from this process; call it before a math library is loaded.

    Raises:
        SettingsError: a library that obeys one of them is loaded, and may have read it.
    """
    for name in inherited_math_modes():
        mode = _math_mode(name)
        assert mode is not None
        if mode.reader in sys.modules:
            raise SettingsError(
                f"{name}: changes how {mode.reader} computes, and {mode.reader} is loaded: expected it to be unset, "
                f"got {os.environ[name]!r}. Unset it and start the process again."
            )
        os.environ.pop(name, None)
    os.environ.update(MATH_SETTINGS)


def restart_without_math_modes(command: list[str]) -> None:
    """Replaces this process by the same program without inherited math modes; returns if there are none."""
    if inherited_math_modes():
        os.execve(command[0], command, clean_environment())


def inherited_math_modes() -> list[str]:
    """Names of the variables of this process that make a math library compute in another way than ours, sorted."""
    return sorted(name for name, value in os.environ.items() if _math_mode(name) and MATH_SETTINGS.get(name) != value)


def _math_mode(variable: str) -> MathMode | None:
    return next((mode for mode in MATH_MODES if mode.covers(variable)), None)


def current_user() -> str:
    """Who is recorded to have replaced rules or adopted code: the login name, or the user id where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user need not be in the password file.
        return f"uid {os.getuid()}"


def worker_environment(settings: Settings) -> dict[str, str]:
    """``clean_environment`` with the variables that make a worker process read the same settings."""
    own = {
        "MM_STORE_URI": settings.store_uri,
        "MM_S3_ENDPOINT": settings.s3_endpoint,
        "MM_NUM_SHARDS": str(settings.num_shards),
        "MM_CONFIG_DIR": str(settings.config_dir) if settings.config_dir else None,
        "MM_HOME": str(settings.home),
        "MM_WORLD_SIZE": str(settings.world_size) if settings.world_size else None,
        "MM_CPUS": str(settings.cpus),
        "MM_RAW_BUCKETS": ",".join(settings.raw_buckets) or None,
    }
    inherited = {name: value for name, value in clean_environment().items() if name not in own}
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
        accelerators=_bounded_int(env, "MM_ACCELERATORS", default=0, minimum=0, maximum=MAX_PROCESSES),
        cpus=_bounded_int(env, "MM_CPUS", default=min(4, os.cpu_count() or 1), maximum=MAX_PROCESSES),
        world_size=_bounded_int(env, "MM_WORLD_SIZE", default=1, maximum=MAX_PROCESSES)
        if env.get("MM_WORLD_SIZE")
        else None,
        k8s_namespace=env.get("MM_K8S_NAMESPACE") or "mm-assets",
        stage_image=env.get("MM_STAGE_IMAGE") or None,
        alert_webhook=env.get("MM_ALERT_WEBHOOK") or None,
        k8s_service_account=env.get("MM_K8S_SERVICE_ACCOUNT") or "mm-stage",
        k8s_store_secret=env.get("MM_K8S_STORE_SECRET") or None,
        pod_name=env.get("MM_POD_NAME") or None,
        pod_uid=env.get("MM_POD_UID") or None,
        cpu_capability=env.get("ATEN_CPU_CAPABILITY") or None,
        parallel=_bounded_int(env, "MM_PARALLEL", default=os.cpu_count() or 1, maximum=MAX_PARALLEL),
        raw_buckets=_buckets(env),
    )


def _buckets(env: Mapping[str, str]) -> tuple[str, ...]:
    """The names and patterns in ``MM_RAW_BUCKETS``."""
    names = tuple(name for name in (part.strip() for part in env.get("MM_RAW_BUCKETS", "").split(",")) if name)
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._*-]+", name):
            raise SettingsError(
                f"MM_RAW_BUCKETS: is unusable: expected names of buckets, or patterns with *, separated by commas, "
                f"got {name!r}."
            )
    return names


def _bounded_int(env: Mapping[str, str], name: str, *, default: int, maximum: int, minimum: int = 1) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not minimum <= int(text) <= maximum:
        raise SettingsError(f"{name}: is unusable: expected a whole number from {minimum} to {maximum}, got {text!r}.")
    return int(text)
