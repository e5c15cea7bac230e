"""What the UI shows of a frozen release: counts and charts per split, why samples were left out, and drift."""

import json
from collections.abc import Mapping
from typing import Any

from mm_assets.charts import svg_markdown
from mm_assets.markdown import table
from mm_assets.release.card import NUM_LISTED
from mm_assets.release.config import SPLITS
from mm_assets.release.plots import count_chart, drift_charts, split_chart
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store


def preview(store: Store, manifest: Manifest) -> str:
    """Markdown for the asset's page."""
    statistics = json.loads(store.get_bytes(manifest.output("stats.json").digest))
    sections = [
        f"**{statistics['num_selected']}** of {statistics['num_samples']} samples selected, "
        f"{statistics['num_dead_letters']} dead letters",
        svg_markdown(split_chart(statistics)),
        svg_markdown(count_chart("Selected samples per label", statistics["labels"])),
        _matrix("Language", "languages", statistics),
        _matrix("Label", "labels", statistics),
        _matrix("Modalities", "modalities", statistics),
        table(("Left out because", "Samples"), list(statistics["reasons"].items())),
    ]
    return "\n\n".join(sections + ([_drift(statistics["drift"])] if statistics["drift"] else [])) + "\n"


def _matrix(title: str, field: str, statistics: Mapping[str, Any]) -> str:
    counts = sorted(statistics[field].items(), key=lambda item: (-item[1], item[0]))
    per_split = [statistics["splits"][split][field] for split in SPLITS]
    rows: list[tuple[object, ...]] = [
        (value or "none", *(counted.get(value, 0) for counted in per_split)) for value, _ in counts[:NUM_LISTED]
    ]
    return table((title, *SPLITS), rows)


def _drift(drift: Mapping[str, Any]) -> str:
    measured = {**drift["fields"], **drift["signals"]}
    rows: list[tuple[object, ...]] = [
        (name, entry["total_variation"], entry["stability_index"], "yes" if name in drift["warnings"] else "")
        for name, entry in measured.items()
    ]
    title = f"Drift of {drift['num_added']} added samples against the parent's {drift['num_before']}"
    charts = "\n\n".join(svg_markdown(chart) for chart in drift_charts(drift))
    return (
        title
        + "\n\n"
        + charts
        + "\n\n"
        + table(("Of", "Total variation", "Stability index", f"Above {drift['limit']}"), rows)
    )
