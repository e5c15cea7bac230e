"""What a stored signature of a text looks like; ``signature`` makes it and ``nearness`` compares it."""

#: Hashes, one byte each.
SIZE = 128
