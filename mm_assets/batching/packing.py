"""Best-fit-decreasing bin packing: integer lengths in, packs out, no I/O and no randomness.

Open packs are kept by their remaining capacity, and a bit mask holds which capacities occur, so the best fit of a
sample is one shift and one lowest-set-bit: about a microsecond per sample at any number of open packs.
"""

from collections.abc import Sequence


def pack_best_fit(lengths: Sequence[int], order: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs items in ``order``, each into the open pack it fills best (the oldest of those), else into a new one.

    Args:
        lengths: Length of every item; from 1 to ``capacity``.
        order: Item numbers, longest first where little padding is wanted.
        capacity: Length of a pack.

    Returns:
        Item numbers per pack, in the order they were placed; packs in the order they were opened.
    """
    packs: list[list[int]] = []
    open_packs: list[list[int]] = [[] for _ in range(capacity + 1)]
    mask = 0
    for item in order:
        length = lengths[item]
        fitting = mask >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1
            pack = open_packs[free].pop(0)
            if not open_packs[free]:
                mask &= ~(1 << free)
            packs[pack].append(item)
        else:
            free, pack = capacity, len(packs)
            packs.append([item])
        free -= length
        if free:
            open_packs[free].append(pack)
            mask |= 1 << free
    return packs
