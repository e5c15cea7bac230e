"""Kinds of tokens: padding, the token that stands for a whole sample, and one kind per modality."""

from mm_assets.modalities.table import NAMES

PAD, CLS = range(2)
#: Kind of a modality's tokens.
KIND_OF = {name: CLS + 1 + index for index, name in enumerate(NAMES)}
