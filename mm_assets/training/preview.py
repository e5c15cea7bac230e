"""The loss curve of a model, as Markdown for the UI."""

import tempfile
from pathlib import Path

from mm_assets.charts import line_chart_svg, svg_markdown
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet

CURVES = {"label_loss": "label", "contrastive_loss": "alignment", "text_loss": "next token"}
MAX_POINTS = 200


def preview(store: Store, manifest: Manifest) -> str:
    """The three losses over the steps, averaged so that at most ``MAX_POINTS`` points are drawn."""
    with tempfile.TemporaryDirectory(prefix="mm-preview-") as folder:
        table = read_parquet(store.fetch(manifest.output("metrics.parquet").digest, Path(folder)), list(CURVES))
    size = max(1, -(-len(table) // MAX_POINTS))
    series = {name: _means(table[column].to_pylist(), size) for column, name in CURVES.items()}
    unit = "step" if size == 1 else f"step / {size}"
    svg = line_chart_svg(series, title=f"Training loss of {manifest.partition.path}", x_label=unit, y_label="loss")
    return svg_markdown(svg)


def _means(values: list[float], size: int) -> list[float]:
    parts = [values[first : first + size] for first in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]
