"""Scratch folders of a killed process are removed by the next one; those of a running process stay."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mm_assets.scratch import reclaim, scratch_folder

HOLD = """
import sys, time
from mm_assets.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "large").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a folder, and the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env={"TMPDIR": str(parent)}, cwd=Path.cwd(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    with holder(tmp_path) as (killed, left), holder(tmp_path) as (_, held):
        assert (left / "large").is_file()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.is_dir()
        with scratch_folder("next") as folder:
            assert not left.exists()
            assert (held / "large").is_file()
            assert folder.is_dir()
        assert not folder.exists()


def test_a_folder_goes_when_its_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), scratch_folder("work"):
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []


def test_folders_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "mm-scratch-foreign").mkdir()
    (tmp_path / "other").mkdir()
    with scratch_folder("mine") as folder:
        assert reclaim(tmp_path) == []
        assert folder.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mm-scratch-foreign", "other"]


def test_what_only_has_the_name_of_a_scratch_folder_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "mm-scratch-file").write_text("a file")
    (tmp_path / "mm-scratch-folder.owner").mkdir()
    (tmp_path / "mm-scratch-link.owner").symlink_to(tmp_path / "kept")
    os.mkfifo(tmp_path / "mm-scratch-pipe.owner")
    (tmp_path / "kept").write_text("somebody's")
    (tmp_path / "mm-scratch-odd.owner").touch()
    (tmp_path / "mm-scratch-odd").write_text("a file where a folder was")
    assert reclaim(tmp_path) == [tmp_path / "mm-scratch-odd"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "kept", "mm-scratch-file", "mm-scratch-folder.owner", "mm-scratch-link.owner", "mm-scratch-pipe.owner",
    }  # fmt: skip


@pytest.mark.parametrize("left", ["owner alone", "half a folder", "whole"])
def test_whatever_a_killed_process_left_is_found(tmp_path: Path, left: str) -> None:
    (tmp_path / "mm-scratch-x-1.owner").touch()
    if left != "owner alone":
        (tmp_path / "mm-scratch-x-1" / "inner").mkdir(parents=True)
    if left == "whole":
        (tmp_path / "mm-scratch-x-1" / "inner" / "large").write_bytes(bytes(1000))
    assert reclaim(tmp_path) == [tmp_path / "mm-scratch-x-1"]
    assert list(tmp_path.iterdir()) == []


def test_many_processes_at_once_neither_fail_nor_lose_a_folder(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"mm-scratch-gone-{number}.owner").touch()
        (tmp_path / f"mm-scratch-gone-{number}").mkdir()

    def use(number: int) -> None:
        for _ in range(10):
            with scratch_folder(f"work-{number}") as folder:
                (folder / "file").write_text("mine")
                assert (folder / "file").read_text() == "mine"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert list(tmp_path.iterdir()) == []
