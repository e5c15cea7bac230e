"""Sizes of scaled pictures, and the blocks of pixels that are averaged before a picture is scaled down.

Averaging blocks reads every pixel once, which is most of what scaling costs; the filter then works on few pixels.
"""

Size = tuple[int, int]

#: Blocks are averaged down to this many times the size that is wanted, or a little more.
GAP = 2.0


def fitted(size: Size, longer: int) -> Size:
    """The size with the same proportions whose longer side is ``longer``."""
    scale = longer / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def blocks(size: Size, wanted: Size) -> Size:
    """Width and height of the blocks that are averaged on the way to ``wanted``.

    Source: ``Image.resize`` of Pillow with ``reducing_gap``.
    """
    return max(1, int(size[0] / wanted[0] / GAP)), max(1, int(size[1] / wanted[1] / GAP))
