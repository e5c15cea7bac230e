"""Which modalities the numbers of a token layout are about."""

from collections.abc import Mapping

from mm_assets.modalities.table import NAMES, aspect


def modalities_of(shape: Mapping[str, int]) -> tuple[str, ...]:
    """Those all of whose numbers are there, in the order of the table."""
    return tuple(name for name in NAMES if all(key in shape for key in aspect(name, "tokens").SHAPE))
