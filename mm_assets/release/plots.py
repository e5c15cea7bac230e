"""Charts of a frozen release: what is selected per split and label, and how added samples differ from the parent's."""

from collections.abc import Mapping
from typing import Any

from mm_assets.charts import bar_chart_svg, line_chart_svg
from mm_assets.release.config import SPLITS

MAX_BARS = 20
#: Signals whose distributions are drawn.
NUM_DRAWN = 2


def split_chart(statistics: Mapping[str, Any]) -> str:
    """Selected samples per split."""
    counts = {split: int(statistics["splits"][split]["num_samples"]) for split in SPLITS}
    total = max(sum(counts.values()), 1)
    bars = [(split, float(count), f"{count} ({count / total:.0%})") for split, count in counts.items()]
    return bar_chart_svg(bars, title="Selected samples per split", maximum=max(counts.values(), default=1))


def count_chart(title: str, counts: Mapping[str, int]) -> str:
    """Selected samples per value, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_BARS]
    bars = [(value or "none", float(count), str(count)) for value, count in ranked]
    return bar_chart_svg(bars, title=title, maximum=max((count for _, count in ranked), default=1))


def drift_charts(drift: Mapping[str, Any]) -> list[str]:
    """How much each field and signal moved, and the deciles of the signals that moved most."""
    measured: dict[str, Mapping[str, Any]] = {**drift["fields"], **drift["signals"]}
    ranked = sorted(measured, key=lambda name: (-float(measured[name]["total_variation"]), name))
    bars = [
        (name, float(measured[name]["total_variation"]), _moved(measured[name], is_warned=name in drift["warnings"]))
        for name in ranked[:MAX_BARS]
    ]
    charts = [bar_chart_svg(bars, title="Total variation from the parent", maximum=1.0)]
    moved = [name for name in ranked if name in drift["signals"] and measured[name]["total_variation"] > 0]
    for name in moved[:NUM_DRAWN]:
        signal = drift["signals"][name]
        series = {"parent": signal["deciles_before"], "added": signal["deciles_added"]}
        charts.append(line_chart_svg(series, title=f"Deciles of {name}", x_label="decile - 1", y_label=name))
    return charts


def _moved(entry: Mapping[str, Any], *, is_warned: bool) -> str:
    return f"{entry['total_variation']:.2f}" + (" above limit" if is_warned else "")
