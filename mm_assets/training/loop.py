"""The training loop of one process: its lanes forward and backward, one exchanged sum, one optimizer step.

Every process makes the same optimizer step from the same bits. Rank 0 also writes checkpoints.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from mm_assets.batching.dataset import PlanDataset, StepLoader
from mm_assets.batching.loader import PlanLoader
from mm_assets.errors import StageError
from mm_assets.training.checkpoint import CheckpointWriter, restore_state, state_of
from mm_assets.training.config import OptimizerConfig, TrainingConfig
from mm_assets.training.gradients import LaneTrainer
from mm_assets.training.lanes import exchange_sum, gather_bytes, lanes_of, tree_sum
from mm_assets.training.network import Network

#: Steps done, all steps, and the loss of a lane of this process; called after every step.
OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a process needs to train; the same on every rank.

    ``first_step`` and ``state`` are where to go on from: steps done and the file that holds what they led to.
    ``last_step`` is where to stop, a step with a checkpoint; None goes on to the plan's end. ``num_workers`` processes
    read ahead.
    """

    config: TrainingConfig
    seed: int
    num_lanes: int
    run: str
    class_weights_K: Tensor
    folder: Path
    first_step: int = 0
    last_step: int | None = None
    state: Path | None = None
    previous_record: str | None = None
    num_workers: int = 0


def train(run: Run, network: Network, open_loader: Callable[[], PlanLoader], on_step: OnStep) -> None:
    """Trains to the plan's end or ``run.last_step``; checkpoints appear in ``run.folder``.

    ``open_loader`` opens the plan and its samples, here and in every process that reads ahead.

    Raises:
        StageError: a loss or gradient is not finite.
    """
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    world_size = distributed.get_world_size() if distributed.is_initialized() else 1
    lanes = lanes_of(rank, world_size=world_size, num_lanes=run.num_lanes)
    optimizer = make_optimizer(network, run.config.optimizer)
    if run.state is not None:
        restore_state(run.state, run.first_step, network, optimizer)
    writer = CheckpointWriter(run.folder, run.run, run.previous_record) if rank == 0 else None
    entries: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    network.train()
    trainer = LaneTrainer(network=network, config=run.config, seed=run.seed, class_weights_K=run.class_weights_K)
    loader = open_loader()
    dataset = PlanDataset(
        open_loader if run.num_workers else lambda: loader, lanes, first_step=run.first_step, last_step=run.last_step
    )
    for step, batches in StepLoader(dataset, num_workers=run.num_workers):
        learning_rate = learning_rate_at(step, loader.num_steps, run.config.optimizer)
        gradients, consumed = trainer.gradients(batches, lanes, loader.facts(step, run.num_lanes))
        gradient = exchange_sum(tree_sum(gradients))
        norm = _apply(network, optimizer, gradient, learning_rate, run.config.optimizer.max_grad_norm)
        _check_finite(step, norm)
        entries += consumed
        steps.append({"step": step, "learning_rate": learning_rate, "gradient_norm": norm})
        done = step + 1
        on_step(done, loader.num_steps, next((entry["loss"] for entry in consumed if entry["ids"]), math.nan))
        if done % run.config.checkpoint_every == 0 or done == loader.num_steps:
            parts = gather_bytes(json.dumps(entries).encode())
            if writer is not None:
                writer.put(done, state_of(network, optimizer), _segment(steps, parts))
            entries, steps = [], []
    if writer is not None:
        writer.close()


def make_optimizer(network: Network, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and tables, but not biases, norms and the temperature."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=(config.beta1, config.beta2), foreach=False)


def learning_rate_at(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up (at most a fifth of the run) times a cosine from 1 down to ``final_lr_fraction``."""
    warmup = max(1, min(config.warmup_steps, num_steps // 5))
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / num_steps))
    decay = config.final_lr_fraction + (1.0 - config.final_lr_fraction) * cosine
    return config.peak_lr * min(1.0, (step + 1) / warmup) * decay


def _apply(
    network: Network, optimizer: torch.optim.Optimizer, gradient: Tensor, learning_rate: float, max_norm: float
) -> float:
    """One optimizer step; returns the gradient's norm before it was clipped."""
    norm = float(torch.linalg.vector_norm(gradient))
    gradient = gradient * min(1.0, max_norm / (norm + 1e-6))
    parameters = list(network.parameters())
    parts = gradient.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    return norm


def _check_finite(step: int, norm: float) -> None:
    if not math.isfinite(norm):
        raise StageError(
            f"training: the gradient of step {step} is not finite: expected a number, got {norm}. "
            "Lower training.optimizer.peak_lr."
        )


def _segment(steps: list[dict[str, Any]], parts: list[bytes]) -> dict[str, Any]:
    """What happened since the last checkpoint: per step its facts, per step and lane what was consumed."""
    lanes = [entry for part in parts for entry in json.loads(part)]
    return {
        "schema": "mm.segment/1",
        "steps": steps,
        "lanes": sorted(lanes, key=lambda entry: (entry["step"], entry["lane"])),
    }
