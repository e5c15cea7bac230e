"""Byte-level tokens: a vocabulary of bytes needs no tokenizer file, covers every language and never changes.

0 PAD, 1 BOS, 2 EOS, 3 MASK, and byte b is token b + 4.
"""

PAD, BOS, EOS, MASK = 0, 1, 2, 3
BYTE_OFFSET = 4
VOCAB_SIZE = 260


def token_ids(text: str, max_tokens: int) -> list[int]:
    """BOS, one token per UTF-8 byte, EOS; cut at ``max_tokens``, so that a cut text has no EOS."""
    return [BOS, *(byte + BYTE_OFFSET for byte in text.encode("utf-8")), EOS][:max_tokens]
