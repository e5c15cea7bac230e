"""Every hostile file has the outcome of the reviewed table, in the check of a drop and in a snapshot."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_assets.errors import MmError
from mm_assets.modalities.reasons import REASONS
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets_tests.drops.raw_data import deliver, freeze, make_folder, open_test_release
from mm_assets_tests.hostile import corpus

#: Reasons that need other ceilings than the corpus is read with, a description beside the file, or a fault of ours.
ELSEWHERE = {"too_many_decoded_bytes", "bad_time_range", "too_many_boxes", "unexpected_error"}


def test_every_file_has_the_outcome_that_the_table_says(tmp_path: Path) -> None:
    found, expected = corpus.outcomes(tmp_path), corpus.table()
    assert {name: said for name, said in found.items() if expected.get(name) != said} == {}
    assert list(expected) == list(found)


def test_the_corpus_is_large_and_meets_every_reason() -> None:
    expected = corpus.table()
    assert len(expected) >= 530
    said = set(" ".join(expected.values()).replace(",", " ").split())
    assert set(REASONS) - said == ELSEWHERE


def drops(folder: Path) -> Iterator[tuple[str, Path]]:
    """A folder per drop of the corpus: one per kind of blob, one per tar and index."""
    for kind, of_kind in corpus.blobs().items():
        yield kind, make_folder(folder / kind, {"a.tar": corpus.blob_tar(kind, of_kind)})
    for name, data in corpus.files().items():
        kind, _, short = name.partition("/")
        if kind == "tar":
            suffix = short[short.index(".") :]
            yield name, make_folder(folder / name, {f"a{suffix}": data})
        elif kind == "index":
            yield name, corpus.index_folder(folder / name, short, data)


@pytest.mark.parametrize("share", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_a_snapshot_says_of_files_what_the_check_says(
    store: Store, settings: Settings, tmp_path: Path, share: int
) -> None:
    """``share``: one of so many tars and indexes is read; of blobs all are, which are in one tar per kind."""
    expected = corpus.table()
    readable: dict[str, str] = {}
    for number, (name, folder) in enumerate(drops(tmp_path)):
        said = expected.get(name, "")
        if "0 samples are left" in said or (said and number % share):
            continue
        if said.startswith(corpus.UNUSABLE):
            with pytest.raises(MmError):
                deliver(store, folder, drop=f"d{number}")
                freeze(store, open_test_release(store, ("src", f"d{number}"), release=f"r{number}"), "0000", settings)
        else:
            deliver(store, folder, drop=f"d{number}")
            readable[f"d{number}"] = name
    spec = open_test_release(store, *(("src", drop) for drop in readable))
    manifest = freeze(store, spec, "0000", settings).manifest
    samples, letters = (
        read_parquet(store.fetch(manifest.output(name).digest, tmp_path / "fetched")).to_pylist()
        for name in ("samples.parquet", "dead_letters.parquet")
    )
    for drop, name in readable.items():
        number = sum(row["drop"] == drop for row in samples)
        dead = [letter for letter in letters if f"/{drop}/" in letter["object"]]
        reasons = sorted(letter["reason"] for letter in dead)
        if name in expected:
            head, _, tail = expected[name].partition(": ")
            assert (head, sorted(tail.split(", ")) if tail else []) == (f"{number} samples", reasons), name
        else:
            of_kind = [said for file, said in expected.items() if file.startswith(f"{name}/")]
            passed = [said for said in of_kind if said == corpus.OK or said.startswith("features: ")]
            assert (number, reasons) == (len(passed), sorted(set_aside(of_kind, passed))), name


def set_aside(everything: list[str], without: list[str]) -> list[str]:
    """The first list without the elements of the second, each as often as it has it."""
    left = list(everything)
    for element in without:
        left.remove(element)
    return left
