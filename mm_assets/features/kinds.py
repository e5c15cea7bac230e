"""The kind of an encoder whose weights are from elsewhere, also the parameter of embeddings that only such ones have.

The parameter holds what decides their bytes beside the encoder's files: the digest of the code that runs it, versions
of the libraries, its type, and the modalities it embeds.
"""

PRETRAINED = "pretrained"
#: The part of the parameter that names the modalities that are embedded.
EMBEDDED = "modalities"
