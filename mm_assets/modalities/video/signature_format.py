"""What a stored signature of a clip looks like; ``signature`` makes it and ``nearness`` compares it."""

#: Equal parts of the clip; of the frame in the middle of each the signature of a picture is kept.
PARTS = 4
