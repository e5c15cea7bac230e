"""Signals of a modality that a sample has several parts of: one value per column, from those of its parts.

A modality says in ``signals.COMBINED`` how; what it does not name goes by the type of the column. A single part keeps
its values as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from mm_assets.identity.canonical import digest_json
from mm_assets.modalities.table import aspect

DECIMALS = 6
#: One part: the place at which the sample is read, and the columns that ``signals.measure`` gave.
Measured = tuple[int, Mapping[str, Any]]


def combine(modality: str, parts: Sequence[Measured]) -> dict[str, Any]:
    """The columns of one sample, from those of its parts in reading order."""
    if len(parts) == 1:
        return dict(parts[0][1])
    signals = aspect(modality, "signals")
    stated: Mapping[str, str] = getattr(signals, "COMBINED", {})
    return {
        name: RULES[stated.get(name) or _by_type(name, kind)](
            [(place, columns[name]) for place, columns in parts if columns[name] is not None]
        )
        for name, kind in signals.COLUMNS
    }


def _by_type(name: str, kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "any"
    if pa.types.is_floating(kind):
        return "mean"
    if pa.types.is_integer(kind):
        return "sum"
    if pa.types.is_binary(kind):
        return "joined"
    return "digest" if name.endswith("_digest") else "first"


Values = Sequence[tuple[int, Any]]


def _values(parts: Values) -> list[Any]:
    return [value for _, value in parts]


def _mean(parts: Values) -> float | None:
    # In the order of the parts, which is the sample's own: the same sum everywhere.
    return round(sum(_values(parts)) / len(parts), DECIMALS) if parts else None


def _joined(parts: Values) -> bytes | None:
    """All of them one after the other; each has the same length."""
    return b"".join(_values(parts)) if parts else None


def _digest(parts: Values) -> str | None:
    """Equal for samples with equal parts at equal places."""
    return digest_json([[place, value] for place, value in parts]) if parts else None


RULES: dict[str, Callable[[Values], Any]] = {
    "any": lambda parts: any(_values(parts)) if parts else None,
    "sum": lambda parts: sum(_values(parts)) if parts else None,
    "min": lambda parts: min(_values(parts), default=None),
    "max": lambda parts: max(_values(parts), default=None),
    "first": lambda parts: parts[0][1] if parts else None,
    "mean": _mean,
    "joined": _joined,
    "digest": _digest,
}
