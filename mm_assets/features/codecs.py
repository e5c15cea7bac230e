"""Which decoders are installed, as far as they can change what a blob decodes to.

Lossless decompression (zlib) is left out: any version gives the same bytes. The machine type is in because compilers
order floating-point operations differently on x86-64 and ARM; the CPU model is not, because nothing here leaves its
last bits in an output (``mel`` says how).
"""

import platform
import unicodedata

import numpy as np
import PIL
import soundfile
import soxr
from PIL import features as pillow

from mm_assets.modalities.video.container import ffmpeg_versions


def codec_versions() -> dict[str, str]:
    """Name and version of every library that turns blobs into numbers, sorted by name."""
    versions = {
        "libjpeg_turbo": pillow.version("libjpeg_turbo"),
        "libjpeg": pillow.version("jpg"),
        "libwebp": pillow.version("webp"),
        "lcms": pillow.version("littlecms2"),
        "pillow": PIL.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__libsoxr_version__,
        **ffmpeg_versions(),
        "numpy": np.__version__,
        "unicode": unicodedata.unidata_version,
        "machine": platform.machine(),
    }
    return {name: str(version or "none") for name, version in sorted(versions.items())}
