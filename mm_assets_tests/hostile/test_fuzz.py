"""No parser or decoder ends in anything but a result or one of our errors, whatever bytes it is given.

``MM_FUZZ_SEED`` and ``MM_FUZZ_EXECUTIONS`` change what ``make soak`` runs; inputs that fail are kept in
``MM_FUZZ_FOLDER``, by default a folder of the test.
"""

import os
from pathlib import Path
from random import Random

import pytest

from mm_assets.errors import MmError
from mm_assets_tests.hostile.fuzz import execute, make_input, run_processes
from mm_assets_tests.hostile.mutations import CHANGES
from mm_assets_tests.hostile.targets import TARGETS, Target


def fuzz(folder: Path, seed: str, executions: int, *, num_processes: int) -> None:
    failures = run_processes(seed, executions, folder, num_processes=num_processes, timeout_s=3600)
    assert not failures, "\n".join(f"{failure.path}: {failure.said.strip()[-300:]}" for failure in failures)
    logs = [path.read_text(errors="replace")[-2000:] for path in folder.glob("worker-*.log")]
    at = [int((folder / f"worker-{worker}.at").read_text()) for worker in range(num_processes)]
    assert max(at) == executions - 1, logs


def test_ten_thousand_executions(tmp_path: Path) -> None:
    fuzz(tmp_path, "ci", 10_000, num_processes=1)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_a_million_executions(tmp_path: Path) -> None:
    folder = Path(os.environ.get("MM_FUZZ_FOLDER") or tmp_path / "fuzz")
    executions = int(os.environ.get("MM_FUZZ_EXECUTIONS") or 1_000_000)
    fuzz(folder, os.environ.get("MM_FUZZ_SEED") or "soak", executions, num_processes=os.cpu_count() or 1)


def test_an_execution_is_the_same_input_every_time() -> None:
    for number in range(50):
        (one, data), (other, again) = make_input("s", number), make_input("s", number)
        assert (one.name, data) == (other.name, again)
    assert make_input("s", 1)[1] != make_input("t", 1)[1]


def test_every_change_changes_something_and_every_target_reads_one_of_its_seeds() -> None:
    for change in CHANGES:
        results = set[bytes]()
        for number in range(20):
            data = bytearray(b"0123456789abcdef" * 40)
            change(Random(number), data, [b"other bytes"])
            results.add(bytes(data))
        assert len(results) > 5, change
    for target in TARGETS:
        assert any(is_read(target, seed) for seed in target.seeds), target.name


def is_read(target: Target, data: bytes) -> bool:
    """Whether an input leads to a result without a word."""
    try:
        return not list(target.read(data))
    except (MmError, ValueError):
        return False


@pytest.mark.parametrize("said", [["two\nlines"], ["the stream at 0x7f00deadbeef"]])
def test_a_sentence_that_nobody_can_read_is_a_failure(said: list[str]) -> None:
    target = Target(name="x", read=lambda _: said, seeds=[b""], share=1)
    with pytest.raises(Exception, match="not one sentence"):
        execute(target, b"")
