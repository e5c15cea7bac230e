"""Damage to texts, of known strength: severities from 1 (hardly noticeable) to 5.

- ``text_ocr``: characters become look-alikes; one without a look-alike is lost. The language does not matter.
"""

import numpy as np
from numpy.typing import NDArray

from mm_assets.modalities.text.tokenizer import BOS, BYTE_OFFSET, EOS

Tokens = NDArray[np.int32]

CHARACTER_ERROR_RATE = (0.02, 0.05, 0.1, 0.2, 0.35)
LOOK_ALIKES = dict(
    zip(
        "0O1lIi5S8B2Zz6bhGCg9qceaosuvwnmrtfdpkxyjEFPRDQUVMNH",
        "O0l1llS5B8Z22b6bCG9ggecoa5vuvrnnftoqhkviFEFBOOVUNMN",
        strict=True,
    )
)


def _misread_tokens(text: Tokens, severity: int, rng: np.random.Generator) -> Tokens:
    """Byte-level tokens of the misread text, never longer than before and never without a character."""
    body = text[text >= BYTE_OFFSET]
    # Cutting at max_text_tokens may leave half a character at the end; surrogateescape keeps its bytes.
    original = bytes((body - BYTE_OFFSET).astype(np.uint8)).decode("utf-8", "surrogateescape")
    misread = "".join(_misread(original, CHARACTER_ERROR_RATE[severity - 1], rng)) or original[:1]
    data = np.frombuffer(misread.encode("utf-8", "surrogateescape"), np.uint8)
    tokens = data.astype(text.dtype) + BYTE_OFFSET
    return np.concatenate([text[:1][text[:1] == BOS], tokens, text[-1:][text[-1:] == EOS]])


def _misread(text: str, rate: float, rng: np.random.Generator) -> list[str]:
    hit = rng.random(len(text)) < rate
    return [
        LOOK_ALIKES.get(character, "") if damaged and not character.isspace() else character
        for character, damaged in zip(text, hit, strict=True)
    ]


CORRUPTIONS = {"text_ocr": _misread_tokens}
