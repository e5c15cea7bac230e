"""Signatures of pictures, clips and texts that tests make up."""

import io
from typing import Any

import numpy as np
from PIL import Image

from mm_assets.modalities.image.decode import DecodedImage
from mm_assets.modalities.image.signature import signature


def noise_field(seed: int, *, side: int = 64, cells: int = 6) -> Image.Image:
    """A smooth field of random colours: unrelated for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def picture(seed: int, *, shade: int = 0) -> bytes:
    """The signature of a field, made lighter by ``shade`` of 255."""
    pixels: Any = np.clip(np.asarray(noise_field(seed)).astype(int) + shade, 0, 255).astype(np.uint8)
    return signature(DecodedImage(rgb=Image.fromarray(pixels)))


def as_jpeg(image: Image.Image, quality: int = 80) -> Image.Image:
    """The picture after a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
