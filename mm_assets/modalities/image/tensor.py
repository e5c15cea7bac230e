"""A picture as the value of its column in ``tensors.arrow``: a small square."""

from typing import Protocol

from PIL import Image

from mm_assets.modalities.image.decode import WHITE, DecodedImage


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
    scale = size / max(image.width, image.height)
    fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.rgb.resize(fitted, Image.Resampling.BILINEAR, reducing_gap=2.0)
    canvas = Image.new("RGB", (size, size), WHITE)
    canvas.paste(small, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
    return canvas.tobytes()


def metadata(config: Shape) -> dict[str, int]:
    """What a reader of the column needs."""
    return {"image_size": config.image_size}
