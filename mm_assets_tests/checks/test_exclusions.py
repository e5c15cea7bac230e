"""Patterns of exclusions: checks and the freeze read them alike."""

import re

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mm_assets.checks.exclusions import EXCLUSIONS, Exclusions, glob_regex
from mm_assets.checks.rules import read_rules_record
from mm_assets.cli import main
from mm_assets.materialize import Workspace
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets_tests.by_hand import open_by_hand

LETTERS = "aé-1]b[\\!z*?^&.\n"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("zoo/d1/n?1", "zoo/d1/né1", True),
        ("x\\y*", "x\\y1", True),
        ("a[b*", "a[bxyz", True),
        ("a[b-d]", "ac", True),
        ("a[!b-d]", "ac", False),
        ("a[d-b]", "ac", False),
        ("a[]]", "a]", True),
        ("a*", "b", False),
        ("a.c", "abc", False),
    ],
)
def test_a_glob_is_what_a_person_expects(pattern: str, name: str, matches: bool) -> None:
    assert Exclusions(samples={pattern: "why"}).covers(name) is matches


@pytest.mark.property
@given(st.text(LETTERS, max_size=8), st.text(LETTERS, max_size=8))
@example("[!]", "a")
def test_checks_and_freezes_match_alike(pattern: str, name: str) -> None:
    regex = glob_regex(pattern)
    [(found,)] = duckdb.execute("SELECT regexp_full_match(?, ?)", [name, regex]).fetchall()
    assert bool(re.fullmatch(regex, name)) is found


@pytest.mark.parametrize(("samples", "reason"), [([""], "why"), (["a", ""], "why")])
def test_exclusions_that_cannot_be_read_back_are_not_put_in_force(
    moto_settings: Settings, store: Store, capsys: pytest.CaptureFixture[str], samples: list[str], reason: str
) -> None:
    open_by_hand(store, "r1")
    assert main(["release", "exclude", "--release", "r1", *samples, "--reason", reason]) == 1
    assert "'' is unusable: expected an id and a reason" in capsys.readouterr().err
    assert read_rules_record(store, "r1") is None
    assert EXCLUSIONS not in Workspace(moto_settings, store).rules("r1").digests
