"""The strict class of determinism on CPU: what a process must set, and what it must be running on."""

from collections.abc import Mapping

import torch

from mm_assets.errors import StageError
from mm_assets.identity.canonical import Json


def set_strict(num_threads: int) -> None:
    """Makes torch's results a function of its inputs; call it before the first tensor is computed.

    The number of threads decides in which order kernels sum, denormals are flushed because whether they are depends
    on the thread otherwise, and an operation without a deterministic kernel raises.
    """
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    torch.set_flush_denormal(True)
    torch.set_default_dtype(torch.float32)


def verify_environment(environment: Mapping[str, Json]) -> None:
    """Compares the declared environment with what torch says about itself; undeclared facts are not compared.

    Raises:
        StageError: this is not the environment the partition was resolved for.
    """
    libraries = environment.get("libraries")
    declared = {
        "torch": libraries.get("torch") if isinstance(libraries, Mapping) else None,
        "cpu_capability": environment.get("cpu_capability"),
    }
    actual = {"torch": str(torch.__version__), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    for name, expected in declared.items():
        if expected is not None and expected != actual[name]:
            raise StageError(
                f"environment: {name} differs from what the action declares: expected {expected}, got {actual[name]}. "
                "Run the stage on the hardware and image it was resolved for, or resolve it here."
            )
