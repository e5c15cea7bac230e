"""A decision in words: its gates as a table, and how the candidate compares with the model in production."""

from collections.abc import Sequence

from mm_assets.markdown import cell, table
from mm_assets.promotion.decision import Decision, GateRecord


def comparison_text(decision: Decision) -> str:
    """One sentence on the model in production and how the candidate compares with it."""
    if decision.comparison is None:
        return "It was not compared with the model in production: decisions did not do so when it was made."
    against = f" (`{decision.champion.model}`)" if decision.champion else ""
    return f"Compared with the model in production{against}: {cell(decision.comparison.reason)}."


def gate_table(gates: Sequence[GateRecord]) -> str:
    """The gates as a Markdown table."""
    return table(("gate", "outcome", "value", "threshold", "reason"), [_row(gate) for gate in gates])


def _row(gate: GateRecord) -> tuple[str, ...]:
    outcome = "**failed**" if gate.outcome == "failed" else gate.outcome.replace("not_applicable", "does not apply")
    value = "" if gate.value is None else f"{gate.value:.3f}"
    threshold = "" if gate.threshold is None else f"{gate.threshold:g}"
    return gate.name, outcome, value, threshold, gate.reason
