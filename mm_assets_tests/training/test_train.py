"""Whole training runs in real processes: the same bits however they are spread, interrupted or repeated."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_assets.batching.validate import validate_batch_plan
from mm_assets.errors import GateError, NonDeterminismError, StageError
from mm_assets.store.tables import read_parquet
from mm_assets.training.ledger import LEDGER
from mm_assets.training.train import compute_model
from mm_assets.training.validate import check_ledger, planned_entries, validate_model

pytestmark = pytest.mark.integration

Make = Callable[..., Any]


def weights(manifest: Any) -> str:
    return manifest.output("weights.safetensors").digest


def test_a_run_trains_and_passes_its_gate(make_bench: Make) -> None:
    bench = make_bench()
    plan = bench.plan()
    assert all(finding.passed for finding in validate_batch_plan(bench.store, plan, bench.settings))
    manifest = bench.train()
    findings = validate_model(bench.store, manifest, bench.settings)
    assert [finding.rule for finding in findings if not finding.passed] == []
    assert manifest.stats["num_steps"] == 6
    assert (plan.stats["rows_in"], plan.stats["steps_per_epoch"]) == (20, 2)
    assert manifest.stats["num_classes"] == 4


def test_one_two_and_four_processes_give_the_same_manifest(make_bench: Make) -> None:
    bench = make_bench()
    bench.plan()
    manifests = [bench.train(world_size=size, force=True) for size in (1, 2, 4)]
    assert len({manifest.encode() for manifest in manifests}) == 1


def test_a_run_killed_with_sigkill_resumes_in_another_folder_bit_for_bit(make_bench: Make) -> None:
    bench = make_bench(num_steps=40, checkpoint_every=5)
    bench.plan()
    recipe = bench.model_recipe()
    prefix = f"checkpoints/{recipe.fingerprint.removeprefix('sha256:')}/"
    killed: list[int] = []

    def kill_after_first_checkpoint() -> None:
        while not list(bench.store.list_keys(prefix)):
            time.sleep(0.01)
        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill_after_first_checkpoint)
    killer.start()
    with pytest.raises(StageError, match="goes on from its last checkpoint"):
        bench.train()
    killer.join()
    stored = len(list(bench.store.list_keys(prefix)))
    assert killed
    assert 1 <= stored < 8

    resumed = bench.train()
    # Forced: starts anew, and would fail if it met a checkpoint with other bits.
    assert bench.train(force=True).encode() == resumed.encode()
    assert all(finding.passed for finding in validate_model(bench.store, resumed, bench.settings))


def test_checkpoint_with_other_bits_is_non_determinism(make_bench: Make) -> None:
    bench = make_bench()
    bench.plan()
    recipe = bench.model_recipe()
    bench.store.create_key(f"checkpoints/{recipe.fingerprint.removeprefix('sha256:')}/00000002.json", b"{}")
    with pytest.raises(NonDeterminismError, match="step 2"):
        bench.train()


def test_ranks_end_when_their_launcher_is_killed() -> None:
    waiting = "from mm_assets.training.worker import end_with_launcher; end_with_launcher()"
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {waiting!r}], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    assert launcher.stdin is not None
    child = int(launcher.stdout.readline())
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize(
    ("num_samples", "modalities", "is_labelled"),
    [(3, ("text", "image"), False), (12, ("text",), True)],
    ids=["no labels and fewer samples than lanes", "text only"],
)
def test_unusual_data_trains(
    make_bench: Make, num_samples: int, modalities: tuple[str, ...], is_labelled: bool
) -> None:
    bench = make_bench(num_samples=num_samples, modalities=modalities, is_labelled=is_labelled)
    assert all(finding.passed for finding in validate_batch_plan(bench.store, bench.plan(), bench.settings))
    manifest = bench.train()
    assert all(finding.passed for finding in validate_model(bench.store, manifest, bench.settings))
    assert (manifest.stats["num_classes"] == 0) is not is_labelled


def test_release_without_training_samples_is_one_clear_error(make_bench: Make) -> None:
    with pytest.raises(StageError, match="no sample is selected for training"):
        make_bench(num_samples=0).plan()


def test_undeclared_environment_is_refused_by_the_rank(make_bench: Make, tmp_path: Path) -> None:
    bench = make_bench()
    bench.plan()
    recipe = bench.model_recipe({"libraries": {"torch": "0.4.0"}})
    with pytest.raises(StageError, match="expected 0.4.0"):
        compute_model(bench.store, recipe, tmp_path, bench.settings)


def test_plan_of_another_dataset_release_is_refused(make_bench: Make) -> None:
    make_bench().plan()
    bench = make_bench(num_samples=30)
    with pytest.raises(GateError, match="was made from another dataset release"):
        bench.model_recipe()


def test_tampered_ledger_and_plan_are_named(make_bench: Make, tmp_path: Path) -> None:
    bench = make_bench(num_samples=12)
    plan = read_parquet(bench.store.fetch(bench.plan().output("plan.parquet").digest, tmp_path))
    ledger = pa.Table.from_pylist(list(planned_entries(plan, 4)), LEDGER)
    assert check_ledger(plan, ledger, num_lanes=4).passed

    rows = ledger.to_pylist()
    rows[3]["ids"] = ["somebody/else/0001"]
    tampered = check_ledger(plan, pa.Table.from_pylist(rows, ledger.schema), num_lanes=4)
    assert not tampered.passed
    assert "step 0 lane 3" in tampered.detail
    assert "somebody/else/0001" in tampered.failing_ids

    short = check_ledger(plan, ledger.slice(0, len(ledger) - 1), num_lanes=4)
    assert "planned but not consumed" in short.detail

    swapped = plan.set_column(plan.schema.get_field_index("id"), "id", pa.array(plan["id"].to_pylist()[::-1]))
    assert not check_ledger(swapped, ledger, num_lanes=4).passed


def worker_pids() -> list[int]:
    """Training processes started by this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"mm_assets.training.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
