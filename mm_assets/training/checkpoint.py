"""Checkpoints: everything a run needs to go on, as safetensors, named by digest and chained.

A checkpoint is a state (weights and optimizer), a segment (ledger and metrics since the one before) and a record that
names both and the record before it. Ranks write files to a local folder; the launching process stores them.
"""

import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.training.chain import CheckpointRecord, step_name

MOMENTS = ("exp_avg", "exp_avg_sq")


def state_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A copy of everything that changes during training, on the CPU."""
    state = {f"model.{name}": _copy(tensor) for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for moment in MOMENTS:
            state[f"optimizer.{moment}.{name}"] = _copy(optimizer.state[parameter][moment])
    return state


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def weights_file(state: Mapping[str, Tensor]) -> bytes:
    """``weights.safetensors``: the weights in a state, under the network's own names."""
    return save({name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")})


def restore_state(path: Path, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The inverse of ``state_of`` after ``step`` steps."""
    state = load_file(path)
    network.load_state_dict({name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")})
    for name, parameter in network.named_parameters():
        moments = {moment: state[f"optimizer.{moment}.{name}"] for moment in MOMENTS}
        here = {moment: values.to(parameter.device) for moment, values in moments.items()}
        optimizer.state[parameter] = {"step": torch.tensor(float(step)), **here}


class CheckpointWriter:
    """Writes checkpoints to a folder in the background, one at a time, in order.

    A record's file appears after everything it names, under its final name, so whoever sees it can use it.
    """

    def __init__(self, folder: Path, run: str, previous: str | None) -> None:
        self._folder = folder
        self._run_digest = run
        self._previous = previous
        self._error: BaseException | None = None
        self._queue: queue.Queue[tuple[int, dict[str, Tensor], Mapping[str, Any]] | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, step: int, state: dict[str, Tensor], segment: Mapping[str, Any]) -> None:
        """Hands a checkpoint over; waits only while the one before last is still being written."""
        self._raise_error()
        self._queue.put((step, state, segment))

    def close(self) -> None:
        """Waits until everything is written."""
        self._queue.put(None)
        self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._write(*item)
                except BaseException as error:  # Raised again where the training loop will see it.
                    self._error = error

    def _write(self, step: int, state: dict[str, Tensor], segment: Mapping[str, Any]) -> None:
        record = CheckpointRecord(
            schema="mm.checkpoint/2",
            run=self._run_digest,
            step=step,
            state=self._save(f"{step_name(step)}.safetensors", save(state)),
            weights=digest_bytes(weights_file(state)),
            segment=self._save(f"{step_name(step)}.segment.json", canonical_json(segment)),
            previous=self._previous,
        )
        self._previous = self._save(f"{step_name(step)}.json", record.encode())

    def _save(self, name: str, data: bytes) -> str:
        temporary = self._folder / f"{name}.partial"
        temporary.write_bytes(data)
        temporary.replace(self._folder / name)
        return digest_bytes(data)
