"""Laws of a freeze over samples that are copies, near copies and members of groups in any combination."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_assets_tests.release.drawings import picture

pytestmark = pytest.mark.property

#: Shades that are near to their neighbours and not to those beyond them.
SHADES = (0, 2, 15, 30)
PICTURES = {(seed, shade): picture(seed, shade=shade) for seed in range(3) for shade in SHADES}
TRAITS = st.tuples(
    st.sampled_from(sorted(PICTURES)), st.sampled_from(["t", "u"]), st.sampled_from([None, None, "g0", "g1"])
)
DECIDED = ("split", "selected", "reasons", "duplicate_of")
NUMBERS = itertools.count()

few_and_many = pytest.mark.parametrize("examples", [2, pytest.param(60, marks=pytest.mark.slow)])


def rows_of(sample, traits, *, prefix, drop="d1"):
    return [
        sample(
            f"{prefix}{number:02d}", drop=drop, audio=None, image_signature=PICTURES[kind], image=f"image {kind}",
            text=text, group=group,
        )
        for number, (kind, text, group) in enumerate(traits)
    ]  # fmt: skip


def decided(rows):
    return {key: [row[name] for name in DECIDED] for key, row in rows.items()}


def checked(examples, *strategies):
    """A law over drawn values, with fixtures that all examples share: every one has releases of its own."""
    ignored = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return lambda law: settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=ignored
    )(given(*strategies)(law))()


@few_and_many
def test_what_a_child_adds_changes_no_split_of_its_parent(world, sample, examples):
    def law(old, new):
        number = next(NUMBERS)
        parent = world.release(rows_of(sample, old, prefix="m"), release=f"p{number}")
        before = world.rows(parent)
        added = rows_of(sample, new, prefix="a", drop="d2")
        child = world.release(added, release=f"c{number}", parent=parent)
        after = world.rows(child)
        for key, row in before.items():
            assert after[key]["split"] == row["split"]
            assert after[key]["selected"] <= row["selected"]
            assert after[key]["selected"] == row["selected"] or "leakage" in after[key]["reasons"].split(",")
        kept = [row for row in after.values() if "leakage" not in row["reasons"].split(",")]
        for group in ("g0", "g1"):
            assert len({row["split"] for row in kept if row["group"] == group}) <= 1
        assert world.findings(child.manifest)["no_near_leakage"].passed

    checked(examples, st.lists(TRAITS, min_size=3, max_size=12), st.lists(TRAITS, min_size=1, max_size=8))(law)


@few_and_many
def test_decisions_depend_on_no_order_and_no_number_of_shards(world, sample, examples):
    def law(traits, random, num_shards):
        number = next(NUMBERS)
        rows = rows_of(sample, traits, prefix="k")
        expected = world.rows(world.release(rows, release=f"a{number}", num_shards=1))
        random.shuffle(rows)
        shuffled = world.rows(world.release(rows, release=f"b{number}", num_shards=num_shards))
        assert decided(shuffled) == decided(expected)

    traits = st.lists(TRAITS, min_size=3, max_size=12)
    checked(examples, traits, st.randoms(use_true_random=False), st.integers(2, 3))(law)
