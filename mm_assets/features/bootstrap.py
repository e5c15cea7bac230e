"""The bytes of the bootstrap encoder, made without torch: a release is opened in a process that has none.

A safetensors file without metadata. The same configuration and the same modalities have the same digest for ever.
``encoder`` runs what is written here.
"""

import safetensors.numpy

from mm_assets.features.config import EncoderConfig
from mm_assets.modalities.table import NAMES, aspect

KIND = "bootstrap"
ENCODER_FILE = "encoder.safetensors"


def bootstrap_encoder_bytes(config: EncoderConfig) -> bytes:
    """A safetensors file with the tensors ``<modality>.<name>`` of every modality."""
    return safetensors.numpy.save(
        {
            f"{modality}.{name}": tensor
            for modality in NAMES
            for name, tensor in aspect(modality, "bootstrap").make_tensors(config.dim).items()
        }
    )
