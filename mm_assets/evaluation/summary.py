"""Parts of a report as Markdown, for the model card and for the UI."""

from mm_assets.evaluation.report import Report, RetrievalScore
from mm_assets.markdown import table

HEADER = ("retrieval", "recall@1", "recall@5", "recall@10", "pool")


def retrieval_table(report: Report) -> str:
    """Recall and chance by direction as a Markdown table; empty when no pool had a sample."""
    measured = {name: entry for name, entry in report.retrieval.items() if entry.n}
    if not measured:
        return ""
    return table(HEADER, [(name.replace("_", " "), *_recalls(entry), entry.n) for name, entry in measured.items()])


def _recalls(entry: RetrievalScore) -> list[str]:
    pairs = (
        (entry.recall_at_1, entry.chance_at_1),
        (entry.recall_at_5, entry.chance_at_5),
        (entry.recall_at_10, entry.chance_at_10),
    )
    return [
        "" if recall is None or chance is None else f"{recall:.3f} (chance {chance:.3f})" for recall, chance in pairs
    ]
