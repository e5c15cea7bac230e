"""How much of a text repeats itself: boilerplate, stuck keys, captions pasted over and over."""

import re

GRAM = 4
DECIMALS = 6
#: Letters of scripts that are written without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNIT = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def repetition(normalised: str) -> float | None:
    """Share of the text's runs of four words that came before in it, in [0, 1].

    0 means that every run is new; None where there are fewer than four words. In scripts without spaces a letter
    counts as a word. Long texts repeat more than short ones, so compare like with like.

    Source: seq-rep-4 of Welleck et al. 2020, arXiv:1908.04319, section 3.
    """
    units = UNIT.findall(normalised)
    total = len(units) - GRAM + 1
    if total < 1:
        return None
    grams = set(zip(*(units[offset : offset + total] for offset in range(GRAM)), strict=True))
    return round(1.0 - len(grams) / total, DECIMALS)
