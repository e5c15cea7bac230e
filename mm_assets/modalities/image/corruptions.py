"""Damage to pictures, of known strength: severities from 1 (hardly noticeable) to 5.

- ``image_jpeg``: the stored small picture compressed as JPEG and decoded again; blocks are large relative to it.
- ``image_blur``: Gaussian blur of the stored picture, radius in its pixels.
- ``image_low_light``: intensities scaled down, with the shot noise of few photons; no white-balance shift.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]

JPEG_QUALITY = (50, 30, 20, 10, 5)
BLUR_RADIUS_PX = (0.5, 1.0, 1.5, 2.5, 4.0)
LIGHT_SHARE = (0.6, 0.4, 0.25, 0.15, 0.08)
FULL_LIGHT_PHOTONS = 400.0


def _jpeg(image: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1], subsampling="4:2:0")
    with Image.open(buffer, formats=["JPEG"]) as decoded:
        return np.asarray(decoded.convert("RGB"))


def _blur(image: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR_RADIUS_PX[severity - 1])))


def _low_light(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    share = LIGHT_SHARE[severity - 1]
    photons = rng.poisson(image / 255.0 * FULL_LIGHT_PHOTONS * share)
    return np.clip(np.rint(photons / FULL_LIGHT_PHOTONS * 255.0), 0, 255).astype(np.uint8)


CORRUPTIONS = {"image_jpeg": _jpeg, "image_blur": _blur, "image_low_light": _low_light}
