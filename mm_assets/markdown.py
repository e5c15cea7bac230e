"""Tables in Markdown, for cards and for what the UI shows."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; what would end a cell or a line is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(value: object) -> str:
    """A value as the text of a cell: a label or language of the data may hold the character that ends one."""
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
