"""What the code server reads of this stage: configurations, actions and checks, without torch."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from mm_assets.errors import SpecError
from mm_assets.identity.canonical import to_json
from mm_assets.store.action import Action
from mm_assets.store.job import Job
from mm_assets.store.objects import Store
from mm_assets.training.chain import CheckpointRecord
from mm_assets.training.config import ModelConfig, TrainingConfig
from mm_assets.training.inputs import check_training_config
from mm_assets.training.lanes import lanes_of, world_size_of
from mm_assets.training.resume import chain_problem
from mm_assets.training.spec import training_spec
from mm_assets.training.validate import check_losses

RUN = "sha256:" + "a" * 64


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def make_chain(num_records: int) -> list[CheckpointRecord]:
    records: list[CheckpointRecord] = []
    for index in range(num_records):
        records.append(
            CheckpointRecord(
                schema="mm.checkpoint/2", run=RUN, step=10 * (index + 1), state=digest("b"),
                weights=digest("c"), segment=digest("d"), previous=records[-1].digest if records else None,
            )
        )  # fmt: skip
    return records


def test_what_the_code_server_imports_is_torch_free() -> None:
    modules = ("config", "inputs", "validate", "preview", "spec")
    names = [f"mm_assets.training.{name}" for name in modules] + [
        "mm_assets.batching.inputs",
        "mm_assets.batching.plan",
    ]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_configuration_survives_json() -> None:
    config = replace(TrainingConfig(), model=ModelConfig(ngrams=(2, 7)), checkpoint_every=7)
    assert TypeAdapter(TrainingConfig).validate_python(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "fp8"}, "precision: expected one of fp32, bf16"),
        ({"threads_per_rank": 0}, "threads_per_rank"),
        ({"model": ModelConfig(width=30, heads=4)}, "model.heads: expected a divisor"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected at least 1"),
    ],
)
def test_unusable_configuration_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_training_config("r1", replace(TrainingConfig(), **change))


def test_spec_fingerprint_covers_the_seed_and_not_the_code(store: Store, tmp_path: Path) -> None:
    action = Action(
        asset="model", code=RUN, environment={}, inputs=(),
        params={"training": to_json(TrainingConfig()), "plan": {"num_lanes": 4}, "seed": 1},
    )  # fmt: skip

    def spec_of(action: Action) -> dict[str, Any]:
        return training_spec(Job(store=store, action=action, workdir=tmp_path))

    spec = spec_of(action)
    assert spec["schema"] == "mm.training/2"
    assert spec["fingerprint"] != spec_of(replace(action, params={**action.params, "seed": 2}))["fingerprint"]
    assert spec == spec_of(replace(action, code=digest("e")))


@pytest.mark.parametrize(
    ("requested", "num_lanes", "expected"),
    [(1, 4, 1), (2, 4, 2), (3, 4, 2), (7, 4, 4), (64, 4, 4), (0, 4, 1), (5, 1, 1)],
)
def test_world_size_is_the_largest_usable_power_of_two(requested: int, num_lanes: int, expected: int) -> None:
    assert world_size_of({"cpus": requested}, num_lanes) == expected
    lanes = [lane for rank in range(expected) for lane in lanes_of(rank, world_size=expected, num_lanes=num_lanes)]
    assert lanes == list(range(num_lanes))


def test_whole_chain_is_accepted() -> None:
    assert chain_problem(make_chain(3), RUN) is None


def test_broken_chains_are_named() -> None:
    records = make_chain(3)
    assert chain_problem(records, digest("e")) == f"checkpoint 10 belongs to another run: {RUN}"
    assert chain_problem(records[::2], RUN) == "checkpoint 30 does not follow checkpoint 10"
    assert chain_problem(records[1:], RUN) == "checkpoint 20 does not follow checkpoint none"
    tampered = [records[0].model_copy(update={"weights": digest("f")}), *records[1:]]
    assert chain_problem(tampered, RUN) == "checkpoint 20 does not follow checkpoint 10"


@pytest.mark.parametrize(
    ("losses", "passed"),
    [([2.0] * 20 + [1.0] * 20, True), ([1.0] * 20 + [2.0] * 20, False), ([1.0, float("nan")], False), ([], False),
     ([1.0, 2.0], True)],
    ids=["falling", "rising", "not a number", "none", "too short to judge"],
)  # fmt: skip
def test_losses_must_be_finite_and_fall(losses: list[float], passed: bool) -> None:
    assert check_losses(losses).passed is passed
