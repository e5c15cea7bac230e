"""Charts are well-formed, deterministic and honest about what is missing."""

import base64
import math
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mm_assets.charts import MAX_BARS, bar_chart_svg, line_chart_svg, png_markdown, svg_markdown

SVG = "{http://www.w3.org/2000/svg}"


def lines_of(svg: str) -> list[list[tuple[float, float]]]:
    polylines = ElementTree.fromstring(svg).iter(f"{SVG}polyline")
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.get("points", "").split())]
        for line in polylines
    ]


def texts_of(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_falling_series_is_a_line_that_falls_on_the_screen() -> None:
    (line,) = lines_of(line_chart_svg({"loss": [3.0, 2.0, 1.0]}, title="Loss", x_label="step", y_label="nats"))
    xs, ys = [x for x, _ in line], [y for _, y in line]
    assert xs == sorted(xs)
    assert ys == sorted(ys), "y grows downwards"


def test_a_gap_splits_the_line() -> None:
    svg = line_chart_svg({"loss": [1.0, 2.0, math.nan, 3.0, 4.0]}, title="t", x_label="x", y_label="y")
    assert [len(line) for line in lines_of(svg)] == [2, 2]


@pytest.mark.parametrize("series", [{}, {"a": []}, {"a": [math.nan, math.inf]}])
def test_nothing_to_draw_says_so(series: dict[str, list[float]]) -> None:
    svg = line_chart_svg(series, title="t", x_label="x", y_label="y")
    assert "no data yet" in texts_of(svg)
    assert not lines_of(svg)


def test_a_constant_series_and_a_single_point_are_drawn() -> None:
    assert len(lines_of(line_chart_svg({"a": [2.0] * 5, "b": [0.0]}, title="t", x_label="x", y_label="y"))) == 2


def test_a_long_series_stays_small_and_keeps_its_mean() -> None:
    svg = line_chart_svg({"a": [float(i % 2) for i in range(100_000)]}, title="t", x_label="x", y_label="y")
    assert len(svg) < 10_000
    (line,) = lines_of(svg)
    assert max(y for _, y in line) - min(y for _, y in line) < 2.0


def test_bars_are_as_long_as_their_values() -> None:
    bars = [("half", 0.5, "a"), ("full", 1.0, "b"), ("beyond", 7.0, "c"), ("unknown", math.nan, "none")]
    root = ElementTree.fromstring(bar_chart_svg(bars, title="t", maximum=1.0))
    widths = [float(rect.get("width", "")) for rect in root.iter(f"{SVG}rect")][1:]
    assert widths[1] == widths[2] == pytest.approx(2 * widths[0], abs=0.1)
    assert len(widths) == 3, "a value that is not a number has no bar"


def test_more_bars_than_fit_are_counted() -> None:
    svg = bar_chart_svg([(f"b{i}", 0.1, "") for i in range(MAX_BARS + 5)], title="t", maximum=1.0)
    assert "and 5 more" in texts_of(svg)


def test_names_from_the_data_cannot_break_the_picture() -> None:
    svg = bar_chart_svg([("<b>&'\"\x00 日本", 0.5, "]]>")], title="\x1b<script>", maximum=1.0)
    assert "<b>&'\" 日本" in texts_of(svg)
    assert "<script>" in texts_of(svg)


def test_markdown_holds_the_image_itself() -> None:
    svg = bar_chart_svg([], title="t", maximum=1.0)
    address = svg_markdown(svg).removeprefix("![chart](data:image/svg+xml;base64,").removesuffix(")")
    assert base64.b64decode(address).decode() == svg
    assert png_markdown(b"\x89PNG", "a [picture]\ngrid") == "![a  picture  grid](data:image/png;base64,iVBORw==)"


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@example({"denormal": [0.0, 5e-324, 1e-310], "huge": [1.7e308, -1.7e308]}, "t")
@example({"denormal": [0.0, 1e-40]}, "t")
@example({"close": [1.0, 1.0 + 1e-15]}, "t")
@given(
    st.dictionaries(st.text(max_size=30), st.lists(st.floats(), max_size=300), max_size=9),
    st.text(max_size=40),
)
def test_any_numbers_and_names_give_well_formed_svg_twice_the_same(series: dict[str, list[float]], title: str) -> None:
    svg = line_chart_svg(series, title=title, x_label=title, y_label=title)
    ElementTree.fromstring(svg)
    assert svg == line_chart_svg(series, title=title, x_label=title, y_label=title)
    for line in lines_of(svg):
        assert all(0 <= x <= 680 and 0 <= y <= 500 for x, y in line)
