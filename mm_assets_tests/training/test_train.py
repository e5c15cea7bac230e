"""Whole training runs in real processes: the same bits however they are spread, interrupted or repeated."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_assets.batching.plan_file import PlanFile
from mm_assets.errors import CheckError, NonDeterminismError, StageError
from mm_assets.store.job import Job
from mm_assets.store.tables import read_parquet, write_parquet
from mm_assets.training.ledger import LEDGER
from mm_assets.training.resume import find_chain
from mm_assets.training.spec import training_spec
from mm_assets.training.train import compute_model
from mm_assets.training.validate import check_ledger, planned_entries

pytestmark = pytest.mark.integration

Make = Callable[..., Any]


def weights(manifest: Any) -> str:
    return manifest.output("weights.safetensors").digest


def test_a_run_trains_and_passes_its_gate(make_bench: Make) -> None:
    bench = make_bench()
    plan = bench.plan()
    assert bench.failures("batch_plan") == []
    manifest = bench.train()
    assert bench.failures("model") == []
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
    action = bench.model_action()
    prefix = f"checkpoints/{action.fingerprint.removeprefix('sha256:')}/"
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
    assert bench.failures("model") == []


def test_how_often_progress_is_logged_is_no_part_of_a_model(make_bench: Make) -> None:
    actions = []
    for release, log_every in (("r1", 1), ("r2", 5)):
        bench = make_bench(release=release, log_every=log_every)
        bench.plan()
        actions.append(bench.model_action())
    assert actions[0].fingerprint == actions[1].fingerprint
    trained = make_bench(release="r1", log_every=1).train()
    again = make_bench(release="r2", log_every=5).train(force=True)
    assert (again.content, again.fingerprint) == (trained.content, trained.fingerprint)


def test_nothing_that_a_model_holds_names_the_code_that_made_it(make_bench: Make) -> None:
    bench = make_bench()
    bench.plan()
    manifest = bench.train()
    job, other = (
        Job(store=bench.store, action=replace(bench.model_action(), code=code), workdir=bench.folder)
        for code in (manifest.code, "sha256:" + "0" * 64)
    )
    assert training_spec(job) == training_spec(other)
    for name in ("spec.json", "checkpoints.json", "config.json"):
        held = bench.store.get_bytes(manifest.output(name).digest).decode()
        assert manifest.code not in held
        assert manifest.fingerprint not in held
    # Other code goes on from checkpoints of its own.
    assert find_chain(bench.store, manifest.fingerprint, run=str(training_spec(job)["fingerprint"]))
    assert not find_chain(bench.store, other.action.fingerprint, run=str(training_spec(job)["fingerprint"]))


def test_checkpoint_with_other_bits_is_non_determinism(make_bench: Make) -> None:
    bench = make_bench()
    bench.plan()
    action = bench.model_action()
    bench.store.create_key(f"checkpoints/{action.fingerprint.removeprefix('sha256:')}/00000002.json", b"{}")
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
    bench.plan()
    assert bench.failures("batch_plan") == []
    manifest = bench.train()
    assert bench.failures("model") == []
    assert (manifest.stats["num_classes"] == 0) is not is_labelled


def test_release_without_training_samples_is_one_clear_error(make_bench: Make) -> None:
    with pytest.raises(StageError, match="no sample is selected for training"):
        make_bench(num_samples=0).plan()


def test_undeclared_environment_is_refused_by_the_rank(make_bench: Make, tmp_path: Path) -> None:
    bench = make_bench()
    bench.plan()
    action = bench.model_action({"libraries": {"torch": "0.4.0"}})
    with pytest.raises(StageError, match="expected 0.4.0"):
        compute_model(Job(store=bench.store, action=action, workdir=tmp_path))


def test_plan_of_another_dataset_release_is_refused(make_bench: Make) -> None:
    make_bench().plan()
    bench = make_bench(num_samples=30)
    with pytest.raises(CheckError, match="batch_plan r1: is stale: it was made from other data"):
        bench.model_action()


def test_tampered_ledger_and_plan_are_named(make_bench: Make, tmp_path: Path) -> None:
    bench = make_bench(num_samples=12)
    path = bench.store.fetch(bench.plan().output("plan.parquet").digest, tmp_path)
    plan = PlanFile(path)
    ledger = pa.Table.from_pylist(list(planned_entries(plan, 4)), LEDGER)
    assert check_ledger(plan, ledger_of(ledger, tmp_path), num_lanes=4).passed

    rows = ledger.to_pylist()
    rows[3]["ids"] = ["somebody/else/0001"]
    tampered = check_ledger(plan, ledger_of(pa.Table.from_pylist(rows, LEDGER), tmp_path), num_lanes=4)
    assert not tampered.passed
    assert "step 0 lane 3" in tampered.detail
    assert "somebody/else/0001" in tampered.failing_ids

    for rows, sentence in (
        (ledger.slice(0, len(ledger) - 1), "step 5 lane 3 was planned but not consumed"),
        (ledger.slice(1), "step 0 lane 0 was planned but not consumed"),
        (pa.concat_tables([ledger, ledger.slice(2, 1)]), "step 0 lane 2 is not planned, or consumed twice"),
    ):
        assert check_ledger(plan, ledger_of(rows, tmp_path), num_lanes=4).detail == sentence

    table = read_parquet(path)
    index = table.schema.get_field_index("id")
    other = table.set_column(index, table.schema.field(index), pa.array(table["id"].to_pylist()[::-1]))
    swapped = PlanFile(write_parquet(other, tmp_path / "swapped.parquet"))
    assert not check_ledger(swapped, ledger_of(ledger, tmp_path), num_lanes=4).passed


def ledger_of(rows: pa.Table, folder: Path) -> pq.ParquetFile:
    return pq.ParquetFile(write_parquet(rows, folder / "ledger.parquet"))


def worker_pids() -> list[int]:
    """Training processes started by this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"mm_assets.training.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
