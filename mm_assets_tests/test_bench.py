"""Every measurement of `make bench` that is not a run of the demo works, on data that take seconds."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_assets.demo import bench, bench_stages
from mm_assets.demo.bench_memory import peaks_of, write_members
from mm_assets.demo.bench_runs import Figure
from mm_assets.materialize import Workspace
from mm_assets.settings import Settings
from mm_assets.store import embedded


@pytest.fixture
def embedded_settings(settings: Settings) -> Iterator[Settings]:
    yield settings
    embedded.stop(settings.home)


def test_stages_are_compared_with_the_bare_work(
    embedded_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_stages, "NUM_PICTURES", 4)
    monkeypatch.setattr(bench_stages, "ROUNDS", 1)
    figures = bench_stages.measure_stages(Workspace(embedded_settings), tmp_path / "stages")
    assert [figure.what for figure in figures] == [
        "snapshot against get + sha256 + put",
        "features without signals against bare decoding",
        "signals, of features without them",
        "features with two workers against one",
    ]
    assert figures[0].number > 0.5
    assert figures[3].number > 0


@pytest.mark.slow
@pytest.mark.integration
def test_memory_is_that_of_processes_of_their_own(embedded_settings: Settings, tmp_path: Path) -> None:
    peaks = peaks_of(embedded_settings, tmp_path / "raw", "small", write_members, 20)
    assert 50 < peaks["snapshot"] < 600
    assert 50 < peaks["check"] < 600


def test_the_last_line_is_one_object_of_all_figures() -> None:
    figures = [Figure(what="a", value="+12%", detail="x"), Figure(what="b", value="3.5 MB", detail="y")]
    result = {"wall_s": 1.5}
    document = json.loads(json.dumps(bench.report_document([], figures, (result, result))))
    assert {name: figure["number"] for name, figure in document["figures"].items()} == {"a": 0.12, "b": 3.5}
    assert document["first_run_s"] == 1.5
