"""A picture as the value of its column in ``tensors.arrow``: a small square."""

from typing import Protocol

from PIL import Image

from mm_assets.modalities.image.decode import WHITE, DecodedImage
from mm_assets.modalities.image.scale import GAP, blocks, fitted


class Shape(Protocol):
    """What making the square reads of the configuration."""

    @property
    def image_size(self) -> int:
        """Height and width, pixels."""
        ...


def make_tensor(image: DecodedImage, config: Shape) -> tuple[bytes, int]:
    """``image_size`` x ``image_size`` x 3 uint8, scaled to fit and centred on white; one picture."""
    return square(image, config.image_size), 1


def square(image: DecodedImage, size: int) -> bytes:
    """``size`` x ``size`` x 3 uint8.

    Scaling is Pillow's bilinear filter over the source area, which works in fixed-point integers and so gives the
    same bytes on every CPU.
    """
    inner = fitted(image.rgb.size, size)
    # The same bytes: where the blocks are those of the small picture, they need no averaging again.
    if blocks(image.rgb.size, inner) == image.factors:
        small = image.scaled(inner)
    else:
        small = image.rgb.resize(inner, Image.Resampling.BILINEAR, reducing_gap=GAP)
    canvas = Image.new("RGB", (size, size), WHITE)
    canvas.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return canvas.tobytes()


def metadata(config: Shape) -> dict[str, int]:
    """What a reader of the column needs."""
    return {"image_size": config.image_size}
