"""Patterns of exclusions: checks and the freeze read them alike."""

import re

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mm_assets.checks.exclusions import Exclusions, glob_regex

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
