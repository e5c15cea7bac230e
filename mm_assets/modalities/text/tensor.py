"""A text as the value of its column in ``tensors.arrow``: byte-level tokens, personal data redacted as configured."""

from typing import Protocol

from mm_assets.modalities.text.personal_data import redact
from mm_assets.modalities.text.tokenizer import VOCAB_SIZE, token_ids


class Shape(Protocol):
    """What making the tokens reads of the configuration."""

    @property
    def max_text_tokens(self) -> int:
        """Length at which a token sequence is cut."""
        ...

    @property
    def redactions(self) -> tuple[str, ...]:
        """Kinds of personal data that are replaced, with their versions."""
        ...


def make_tensor(text: str, config: Shape) -> tuple[list[int], int]:
    """Token ids and their number."""
    if config.redactions:
        text = redact(text, config.redactions)[0]
    tokens = token_ids(text, config.max_text_tokens)
    return tokens, len(tokens)


def metadata(config: Shape) -> dict[str, int]:
    """What a reader of the column needs."""
    del config
    return {"vocab_size": VOCAB_SIZE}
