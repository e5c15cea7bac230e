"""Memory of a snapshot and of its check does not follow the size of the shard."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_assets.demo.bench_memory import Make, peaks_of, write_cells, write_members, write_metadata, write_pictures
from mm_assets.drops.disk_sort import DiskSort
from mm_assets.settings import Settings
from mm_assets.store import embedded

MAX_MB = 600


@pytest.fixture
def embedded_settings(settings: Settings) -> Iterator[Settings]:
    yield settings
    embedded.stop(settings.home)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("make", "size"),
    [(write_members, 2_000_000), (write_metadata, 2000), (write_pictures, 2500), (write_cells, 3000)],
    ids=["2 million members", "2,000 x 224 kB of metadata", "5 GB", "3,000 cells of 1 MB"],
)
def test_a_large_shard_stays_below_the_ceiling(
    embedded_settings: Settings, tmp_path: Path, make: Make, size: int
) -> None:
    peaks = peaks_of(embedded_settings, tmp_path / "raw", "large", make, size)
    assert peaks["snapshot"] < MAX_MB
    assert peaks["check"] < MAX_MB


@pytest.mark.parametrize("buffer_bytes", [1, 5000, 1 << 30])
def test_records_come_back_sorted_whatever_fits_into_memory(tmp_path: Path, buffer_bytes: int) -> None:
    sort = DiskSort(tmp_path, "s", num_keys=2, buffer_bytes=buffer_bytes)
    records = [[f"k{number * 7919 % 101}", number % 3, number, "\ud800"] for number in range(200)]
    for record in records:
        sort.append(*record)
    expected = sorted(records, key=lambda record: record[:2])
    assert list(sort) == expected
    assert list(sort) == expected
