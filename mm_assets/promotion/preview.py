"""What the UI shows of a promotion: the decision, the comparison with production and every gate."""

from mm_assets.promotion.decision import read_decision
from mm_assets.promotion.summary import comparison_text, gate_table
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store


def preview(store: Store, manifest: Manifest) -> str:
    """Markdown with the decision and a table of the gates."""
    decision = read_decision(store, manifest)
    where = f" to **{decision.state}**" if decision.state != "none" else ": it is not registered"
    return (
        f"**{decision.decision.capitalize()}**{where}.\n\n{comparison_text(decision)}\n\n{gate_table(decision.gates)}\n"
    )
