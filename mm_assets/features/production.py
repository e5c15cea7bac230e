"""The bytes of an encoder made of a model's towers, made without torch: who opens a release may have none.

A safetensors file with the tensors of the towers and, as metadata, what the network's shape is. The same model always
gives the same bytes. ``towers`` runs what is written here.
"""

import json

import safetensors.numpy

from mm_assets.errors import SpecError
from mm_assets.features.config import EncoderConfig
from mm_assets.identity.canonical import canonical_json

KIND = "towers"
#: The parts of the network that embed one modality without seeing another.
PARTS = ("kind_embedding.", "embedders.", "towers.", "tower_norm.", "projections.")
CONFIG = "config"


def towers_encoder_bytes(model_config: bytes, weights: bytes, config: EncoderConfig) -> bytes:
    """The encoder of a model, from its ``config.json`` and ``weights.safetensors``.

    Raises:
        SpecError: the towers give embeddings of another length than the configuration asks for.
    """
    described = json.loads(model_config)
    dim = described["model"]["projection_dim"]
    if dim != config.dim:
        raise SpecError(
            f"encoder towers: the model's embeddings have another length: expected {config.dim}, got {dim}. Open the "
            "release with a configuration whose encoder.dim is that."
        )
    tensors = {name: value for name, value in safetensors.numpy.load(weights).items() if name.startswith(PARTS)}
    kept = canonical_json({name: described[name] for name in ("model", "layout")})
    return safetensors.numpy.save(tensors, metadata={CONFIG: kept.decode()})
