"""What the UI shows of a promotion: the decision and every gate."""

from collections.abc import Sequence

from mm_assets.promotion.decision import GateRecord, read_decision
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store


def preview(store: Store, manifest: Manifest) -> str:
    """Markdown with the decision and a table of the gates."""
    decision = read_decision(store, manifest)
    where = f" to **{decision.state}**" if decision.state != "none" else ": the registry was not touched"
    return f"**{decision.decision.capitalize()}**{where}.\n\n{gate_table(decision.gates)}\n"


def gate_table(gates: Sequence[GateRecord]) -> str:
    """The gates as a Markdown table."""
    lines = ["| gate | outcome | value | threshold | reason |", "|---|---|---|---|---|"]
    for gate in gates:
        outcome = "does not apply" if gate.value is None else "passed" if gate.passed else "**failed**"
        value = "" if gate.value is None else f"{gate.value:.3f}"
        # A language or label of the data may hold the character that ends a cell.
        reason = gate.reason.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {gate.name} | {outcome} | {value} | {gate.threshold:g} | {reason} |")
    return "\n".join(lines)
