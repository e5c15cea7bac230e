"""What a dataset is called in the documents about it."""

from collections.abc import Mapping
from typing import Any

#: Drops that a title names.
NUM_NAMED = 3


def dataset_name(record: Mapping[str, Any]) -> str:
    """A title made of the drops' names; the release's name is not in it."""
    names = [f"{drop['source']}/{drop['drop']}" for drop in record["drops"]]
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
