"""Filling packs: lengths in keyed order in, packs out, no I/O and no randomness.

A pack takes items in their order until little room is left, and the rest of it is filled by one to three items whose
lengths add up to that room. Which lengths are at hand is a bit mask, so all pairs of lengths are compared with a room
in one shift and one conjunction, and an item costs less than a microsecond.
"""

from collections.abc import Sequence

#: Items of a pack that are chosen by their lengths, about; the others come in their order.
CHOSEN = 2
#: Tokens of a pack that may stay empty before a third item is tried, as one part of so many.
SPARE_PARTS = 512
#: Lengths that are tried as the third item.
MAX_TRIES = 8


class Pool:
    """Items that no pack holds yet.

    Args:
        lengths: Length of every item, in the order in which they should be packed; from 1 to ``capacity``.
        capacity: Length of a pack.
    """

    def __init__(self, lengths: Sequence[int], capacity: int) -> None:
        self._lengths = lengths
        self._capacity = capacity
        self._is_here = bytearray(b"\x01") * len(lengths)
        self._next = 0
        self._by_length: dict[int, list[int]] = {}
        for item in range(len(lengths) - 1, -1, -1):
            self._by_length.setdefault(lengths[item], []).append(item)
        self._count = {length: len(items) for length, items in self._by_length.items()}
        self._mask = sum(1 << length for length in self._count)
        self._reversed = sum(1 << (capacity - length) for length in self._count)
        self.num_items = len(lengths)
        self.total = sum(lengths)

    def fill(self) -> list[int]:
        """The items of the next pack, the first of them the oldest; the pool must not be empty."""
        pack = [self._take(self._oldest())]
        free = self._capacity - self._lengths[pack[0]]
        room = CHOSEN * self.total // self.num_items if self.num_items else 0
        lengths, is_here = self._lengths, self._is_here
        item = self._next
        while item < len(lengths):
            if is_here[item]:
                if lengths[item] > free - room:
                    break
                free -= lengths[item]
                pack.append(self._take(item))
            item += 1
        self._next = item
        while chosen := self._choose(free):
            pack += [self._take_length(length) for length in chosen]
            free -= sum(chosen)
        return pack

    def rest(self) -> list[int]:
        """The items that are left, in their order."""
        return [item for item in range(self._next, len(self._lengths)) if self._is_here[item]]

    def _oldest(self) -> int:
        while not self._is_here[self._next]:
            self._next += 1
        return self._next

    def _take(self, item: int) -> int:
        length = self._lengths[item]
        self._is_here[item] = 0
        self.num_items -= 1
        self.total -= length
        self._count[length] -= 1
        if not self._count[length]:
            self._mask ^= 1 << length
            self._reversed ^= 1 << (self._capacity - length)
        return item

    def _take_length(self, length: int) -> int:
        items = self._by_length[length]
        while not self._is_here[items[-1]]:
            items.pop()
        return self._take(items.pop())

    def _choose(self, room: int) -> list[int]:
        """Lengths of one to three items that leave the least of ``room``; none where no item fits."""
        chosen, empty = self._pair(room)
        fitting = self._mask & ((1 << (room + 1)) - 1)
        for _ in range(MAX_TRIES):
            if empty <= self._capacity // SPARE_PARTS or not fitting:
                break
            third = fitting.bit_length() - 1
            fitting ^= 1 << third
            self._count[third] -= 1
            pair, left = self._pair(room - third)
            self._count[third] += 1
            if left < empty:
                chosen, empty = [third, *pair], left
        return chosen

    def _pair(self, room: int) -> tuple[list[int], int]:
        """One or two lengths that leave the least of ``room``, of two the most equal ones, and what they leave."""
        count = self._count
        fitting = self._mask & ((1 << (room + 1)) - 1)
        while fitting and not count[fitting.bit_length() - 1]:
            fitting ^= 1 << (fitting.bit_length() - 1)
        longest = fitting.bit_length() - 1
        if longest < 0:
            return [], room
        for empty in range(room - longest):
            target = room - empty
            half = (target + 1) // 2
            # A bit is set where a length and what it leaves of the target are here; the pattern is symmetric.
            both = (fitting & (self._reversed >> (self._capacity - target))) >> half
            while both:
                bit = both & -both
                first = half + bit.bit_length() - 1
                second = target - first
                if count[first] and count[second] and (first != second or count[first] > 1):
                    return [first, second], empty
                both ^= bit
        return [longest], room - longest


def pack_items(lengths: Sequence[int], capacity: int, *, keep: int = 0) -> tuple[list[list[int]], list[int]]:
    """Packs items in about their order.

    Args:
        lengths: Length of every item; from 1 to ``capacity``.
        capacity: Length of a pack.
        keep: Stop when what is left is at most this long in total: the fewer items are at hand, the more room stays.

    Returns:
        Item numbers per pack, and those of the items that are left, in their order.
    """
    pool = Pool(lengths, capacity)
    packs: list[list[int]] = []
    while pool.num_items and pool.total > keep:
        packs.append(pool.fill())
    return packs, pool.rest()
