"""What a stored signature of a picture looks like; ``signature`` makes it and ``nearness`` compares it."""

#: Height and width of the picture that it is made from.
SIDE = 32
#: Frequencies that are kept per axis, of luma and of each of the two chroma channels.
LUMA, CHROMA = 10, 5
#: Values: luma, blue difference, red difference; each by row and then column of frequencies.
SIZE = LUMA * LUMA + 2 * CHROMA * CHROMA
#: Steps per unit of root-mean-square difference of 8-bit values.
STEPS = 8
