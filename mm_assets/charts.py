"""Line and bar charts as SVG text, and pictures as Markdown, for previews in the UI.

Pure and deterministic: the same numbers give the same bytes. Every chart paints its own background, because the UI
shows it on a light or a dark page. Nothing here knows what the numbers mean.
"""

import base64
import math
import unicodedata
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH = 680
MAX_POINTS = 240
MAX_BARS = 60

PAPER, FRAME, GRID, INK, SOFT_INK = "#fcfcfb", "#d8d7d3", "#e8e7e3", "#1f1f1e", "#63625e"
FONT = "font-family='ui-sans-serif,system-ui,Segoe UI,Helvetica,Arial,Noto Sans,sans-serif'"
#: Okabe and Ito's colours, which stay apart for colour-blind readers; the yellow is left out (too pale on paper).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1f1f1e")
DASHES = ("", "5 3", "2 3")

LINE_HEIGHT, LINE_LEFT, LINE_RIGHT, LINE_TOP, LINE_BOTTOM = 348, 64, 20, 84, 52
LEGEND_COLUMNS = 4
MAX_UNIT_TICKS = 12
#: Ranges below the one are drawn as a point, values beyond the other (also NaN) not at all.
SMALLEST, LARGEST = 1e-30, 1e100
BAR_STEP, BAR_THICKNESS, BAR_TOP, BAR_LABEL, BAR_NOTE = 26, 16, 52, 176, 128


def line_chart_svg(series: Mapping[str, Sequence[float]], *, title: str, x_label: str, y_label: str) -> str:
    """One line per series over its index; values that are not finite leave a gap.

    A series longer than ``MAX_POINTS`` is drawn as the means of that many equal pieces.

    Args:
        series: Values by name, drawn in this order. Lengths may differ; each spans the width from its own index 0.
        title: Heading of the chart.
        x_label: What the index counts.
        y_label: What the values are.
    """
    rows = (max(len(series) - 1, 0)) // LEGEND_COLUMNS
    top, height = LINE_TOP + 18 * rows, LINE_HEIGHT + 18 * rows
    finite = [value for values in series.values() for value in values if abs(value) < LARGEST]
    parts = [_title(title)]
    if not finite:
        parts.append(_text(WIDTH / 2, height / 2, "no data yet", size=13, colour=SOFT_INK, anchor="middle"))
        return _page(height, parts)
    ticks = _ticks(min(finite), max(finite))
    length = max(len(values) for values in series.values())
    x_scale = _Scale(0, max(length - 1, 1), LINE_LEFT, WIDTH - LINE_RIGHT)
    y_scale = _Scale(ticks[0], ticks[-1], height - LINE_BOTTOM, top)
    parts += _axes(ticks, x_scale, y_scale, length)
    parts.append(_text((LINE_LEFT + WIDTH - LINE_RIGHT) / 2, height - 14, x_label, colour=SOFT_INK, anchor="middle"))
    parts.append(_text(16, 46, y_label, colour=SOFT_INK))
    for index, (name, values) in enumerate(series.items()):
        style = f"stroke='{COLOURS[index % len(COLOURS)]}'"
        dash = DASHES[index // len(COLOURS) % len(DASHES)]
        style += f" stroke-dasharray='{dash}'" if dash else ""
        parts += _line(values, x_scale, y_scale, style)
        parts += _legend_entry(index, name, style)
    return _page(height, parts)


def bar_chart_svg(bars: Sequence[tuple[str, float, str]], *, title: str, maximum: float) -> str:
    """Horizontal bars, one per ``(label, value, annotation)``, from zero to ``maximum``.

    A value that is not finite has no bar, only its annotation. Beyond ``MAX_BARS`` the rest is counted in a last line.

    Args:
        bars: In drawing order.
        title: Heading of the chart.
        maximum: Value of a full bar; larger values are drawn full.
    """
    shown = bars[:MAX_BARS]
    scale = _Scale(0.0, maximum if maximum > 0 else 1.0, BAR_LABEL, WIDTH - BAR_NOTE)
    bottom = BAR_TOP + BAR_STEP * max(len(shown), 1)
    parts = [_title(title)]
    for tick in _ticks(0.0, scale.high):
        if tick <= scale.high:
            x = scale.at(tick)
            parts.append(f"<path d='M{x:.1f} {BAR_TOP - 4}V{bottom}' stroke='{GRID}'/>")
            parts.append(_text(x, bottom + 16, _number(tick), size=11, colour=SOFT_INK, anchor="middle"))
    for index, (label, value, annotation) in enumerate(shown):
        parts += _bar(BAR_TOP + BAR_STEP * index, label, value, annotation, scale)
    if not shown:
        parts.append(_text(WIDTH / 2, BAR_TOP + 14, "no data yet", size=13, colour=SOFT_INK, anchor="middle"))
    if len(bars) > len(shown):
        parts.append(_text(16, bottom + 16, f"and {len(bars) - len(shown)} more", size=11, colour=SOFT_INK))
    return _page(bottom + 30, parts)


def svg_markdown(svg: str) -> str:
    """Markdown that shows ``svg`` as an image, so that no script of it could run."""
    return f"![chart](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def png_markdown(png: bytes, alt: str) -> str:
    """Markdown that shows ``png``; brackets and line breaks of ``alt`` become spaces."""
    plain = "".join(" " if character in "[]\n\r" else character for character in alt)
    return f"![{plain}](data:image/png;base64,{base64.b64encode(png).decode()})"


class _Scale:
    """A linear map from values to pixels that keeps to its ends."""

    __slots__ = ("_end", "_low", "_start", "high")

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self.high, self._start, self._end = low, high, start, end

    def at(self, value: float) -> float:
        share = (min(max(value, self._low), self.high) - self._low) / (self.high - self._low)
        return self._start + share * (self._end - self._start)


def _ticks(low: float, high: float) -> list[float]:
    """Round values that enclose ``[low, high]``, at most seven. A range too small to show is a point."""
    size = max(abs(low), abs(high))
    if high - low <= max(SMALLEST, size * 1e-9):
        pad = size / 2 if size > SMALLEST else 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _axes(ticks: list[float], x_scale: _Scale, y_scale: _Scale, length: int) -> list[str]:
    parts: list[str] = []
    left, right = x_scale.at(0), x_scale.at(x_scale.high)
    for tick in ticks:
        y = y_scale.at(tick)
        parts.append(f"<path d='M{left:.1f} {y:.1f}H{right:.1f}' stroke='{GRID}'/>")
        parts.append(_text(left - 8, y + 4, _number(tick), size=11, colour=SOFT_INK, anchor="end"))
    bottom = y_scale.at(ticks[0])
    ticks_x = range(length) if length <= MAX_UNIT_TICKS else _ticks(0, length - 1)
    whole = [tick for tick in ticks_x if tick == int(tick) and tick <= x_scale.high]
    for tick in whole:
        parts.append(_text(x_scale.at(tick), bottom + 18, _number(tick), size=11, colour=SOFT_INK, anchor="middle"))
    parts.append(f"<path d='M{left:.1f} {bottom:.1f}H{right:.1f}' stroke='{SOFT_INK}'/>")
    return parts


def _line(values: Sequence[float], x_scale: _Scale, y_scale: _Scale, style: str) -> list[str]:
    runs: list[list[str]] = [[]]
    for position, value in _thinned(values):
        if abs(value) < LARGEST:
            runs[-1].append(f"{x_scale.at(position):.1f},{y_scale.at(value):.1f}")
        elif runs[-1]:
            runs.append([])
    shape = f"fill='none' {style} stroke-width='2' stroke-linejoin='round' stroke-linecap='round'"
    # A single point has no length; a round cap makes it a dot.
    return [f"<polyline points='{' '.join(run if len(run) > 1 else run * 2)}' {shape}/>" for run in runs if run]


def _thinned(values: Sequence[float]) -> list[tuple[float, float]]:
    """Positions and values, as means of ``MAX_POINTS`` pieces where there are more."""
    if len(values) <= MAX_POINTS:
        return [(float(index), float(value)) for index, value in enumerate(values)]
    points: list[tuple[float, float]] = []
    for piece in range(MAX_POINTS):
        first = piece * len(values) // MAX_POINTS
        last = (piece + 1) * len(values) // MAX_POINTS
        finite = [value for value in values[first:last] if abs(value) < LARGEST]
        points.append(((first + last - 1) / 2, math.fsum(finite) / len(finite) if finite else math.nan))
    return points


def _legend_entry(index: int, name: str, style: str) -> list[str]:
    x = LINE_LEFT + 152 * (index % LEGEND_COLUMNS)
    y = 68 + 18 * (index // LEGEND_COLUMNS)
    return [
        f"<path d='M{x} {y - 4}h18' {style} stroke-width='3'/>",
        _text(x + 24, y, _shortened(name, 19), size=12),
    ]


def _bar(top: float, label: str, value: float, annotation: str, scale: _Scale) -> list[str]:
    base = top + BAR_THICKNESS - 4
    parts = [_text(BAR_LABEL - 10, base, _shortened(label, 24), size=12, anchor="end")]
    end = scale.at(0)
    if math.isfinite(value):
        end = scale.at(value)
        width = max(end - scale.at(0), 1.0)
        parts.append(
            f"<rect x='{scale.at(0):.1f}' y='{top}' width='{width:.1f}' height='{BAR_THICKNESS}' rx='2' "
            f"fill='{COLOURS[0]}'/>"
        )
    parts.append(_text(end + 8, base, _shortened(annotation, 22), size=12, colour=SOFT_INK))
    return parts


def _page(height: float, parts: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0f}' "
        f"viewBox='0 0 {WIDTH} {height:.0f}' {FONT}>"
        f"<rect x='.5' y='.5' width='{WIDTH - 1}' height='{height - 1:.0f}' rx='6' fill='{PAPER}' stroke='{FRAME}'/>"
        + "".join(parts)
        + "</svg>"
    )


def _title(title: str) -> str:
    return _text(16, 26, _shortened(title, 84), size=15, weight=" font-weight='600'")


def _text(
    x: float, y: float, text: str, *, size: int = 12, colour: str = INK, anchor: str = "start", weight: str = ""
) -> str:
    # Control characters are not allowed in XML, not even escaped.
    plain = "".join(character for character in text if unicodedata.category(character) not in {"Cc", "Cs"})
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{colour}' text-anchor='{anchor}'{weight}>"
        f"{escape(plain)}</text>"
    )


def _shortened(text: str, columns: int) -> str:
    """``text`` cut to ``columns`` Latin letter widths; East Asian wide characters count double."""
    used = 0
    for index, character in enumerate(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > columns:
            return text[:index].rstrip() + "…"
    return text


def _number(value: float) -> str:
    """A tick's label: thousands as k, otherwise as short as it is exact."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"
