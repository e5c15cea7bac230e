"""What a stored signature of a clip looks like; ``signature`` makes it and ``nearness`` compares it."""

#: Equal parts of the clip, and bands of frequency in each.
PARTS, BANDS = 16, 12
SIZE = PARTS * BANDS
STEPS_PER_DB = 2
