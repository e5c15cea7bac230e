"""What the UI shows of a batch plan: what its packs hold, and what of them is empty."""

import json

from mm_assets.batching.rows import CLS_TOKENS
from mm_assets.charts import bar_chart_svg, svg_markdown
from mm_assets.markdown import table
from mm_assets.modalities.table import NAMES
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store


def preview(store: Store, manifest: Manifest) -> str:
    """Markdown for the asset's page."""
    summary = json.loads(store.get_bytes(manifest.output("plan.json").digest))
    room = summary["num_packs"] * summary["pack_tokens"]
    tokens = {
        **{name: summary["tokens"][name] for name in NAMES},
        "CLS": CLS_TOKENS * summary["num_slots"],
        "padding": room - summary["used_tokens"],
    }
    bars = [(name, float(count), f"{count:,} ({count / room:.2%})") for name, count in tokens.items()]
    cut = [(name, f"{count:,}") for name, count in summary["cut_tokens"].items() if count]
    sections = [
        f"**{summary['num_steps']}** steps of {summary['num_lanes']} lanes and {summary['packs_per_lane']} packs of "
        f"{summary['pack_tokens']} tokens: {summary['num_slots']:,} slots, {summary['epochs']} epochs of "
        f"{summary['num_samples']:,} samples; {summary['padding_efficiency']:.2%} of the tokens are real",
        svg_markdown(bar_chart_svg(bars, title="Tokens of all packs", maximum=float(max(tokens.values())))),
    ]
    if cut:
        sections.append(table(("Parts that no pack has room for, of", "Tokens a pass over the data"), cut))
    return "\n\n".join(sections) + "\n"
