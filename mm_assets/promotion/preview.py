"""What the UI shows of a promotion: the decision, the comparison with production and every gate."""

from collections.abc import Sequence

from mm_assets.promotion.decision import Decision, GateRecord, read_decision
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store


def preview(store: Store, manifest: Manifest) -> str:
    """Markdown with the decision and a table of the gates."""
    decision = read_decision(store, manifest)
    where = f" to **{decision.state}**" if decision.state != "none" else ": it is not registered"
    return (
        f"**{decision.decision.capitalize()}**{where}.\n\n{comparison_text(decision)}\n\n{gate_table(decision.gates)}\n"
    )


def comparison_text(decision: Decision) -> str:
    """One sentence on the model in production and how the candidate compares with it."""
    if decision.comparison is None:
        return "It was not compared with the model in production: decisions did not do so when it was made."
    against = f" (`{decision.champion.model}`)" if decision.champion else ""
    reason = _cell(decision.comparison.reason)
    return f"Compared with the model in production{against}: {reason}."


def gate_table(gates: Sequence[GateRecord]) -> str:
    """The gates as a Markdown table."""
    lines = ["| gate | outcome | value | threshold | reason |", "|---|---|---|---|---|"]
    for gate in gates:
        outcome = "**failed**" if gate.outcome == "failed" else gate.outcome.replace("not_applicable", "does not apply")
        value = "" if gate.value is None else f"{gate.value:.3f}"
        threshold = "" if gate.threshold is None else f"{gate.threshold:g}"
        lines.append(f"| {gate.name} | {outcome} | {value} | {threshold} | {_cell(gate.reason)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    # A language or label of the data may hold the character that ends a cell.
    return text.replace("|", "\\|").replace("\n", " ")
