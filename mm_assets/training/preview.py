"""The loss curve of a model, as Markdown for the UI."""

from mm_assets.charts import line_chart_svg, svg_markdown
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet

CURVES = {"label_loss": "label", "contrastive_loss": "alignment", "text_loss": "next token"}


def preview(store: Store, manifest: Manifest) -> str:
    """The three losses over the steps."""
    with scratch_folder("preview") as folder:
        table = read_parquet(store.fetch(manifest.output("metrics.parquet").digest, folder), list(CURVES))
    series = {name: table[column].to_pylist() for column, name in CURVES.items()}
    svg = line_chart_svg(series, title=f"Training loss of {manifest.partition.path}", x_label="step", y_label="loss")
    return svg_markdown(svg)
