"""The bootstrap encoder: classical descriptors as torch modules, each followed by a fixed projection.

It stands in while the store has no trained model: similar inputs get similar embeddings, nothing more. Invariant: a
sample's embedding has the same bits for every batch size, thread count and CPU. All sums and matrix products run over
integers below 2**53 (held in float64) and are therefore exact in any order; what lies between (division, square root,
rounding) is elementwise and correctly rounded by IEEE 754. The argument holds for a GPU too; no test here has one.
Log-mel values enter as multiples of 1/1024.

Shape legend: B samples, D embedding.
"""

from collections.abc import Mapping

import pyarrow as pa
import safetensors.torch
import torch
from torch import Tensor, nn

from mm_assets.errors import StageError
from mm_assets.modalities.table import MODALITIES, NAMES, aspect


class BootstrapEncoder(nn.Module):
    """The descriptors of all modalities, as unit vectors of one length.

    ``batch_rows`` is None: any number of rows at a time gives the same bits.
    """

    batch_rows: int | None = None
    modalities = NAMES

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.descriptors = nn.ModuleDict(
            {name: aspect(name, "descriptor").Descriptor(_own(tensors, name)) for name in _modalities(tensors)}
        )
        self.dim = tensors[f"{NAMES[0]}.projection"].shape[1]

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.buffers()).device

    def encode(self, modality: str, *inputs: Tensor) -> Tensor:
        """What the modality's ``collect`` gives to float32 unit vectors [B, D]."""
        return _unit(self.descriptors[modality](*(tensor.to(self.device) for tensor in inputs)))

    def encode_column(self, modality: str, column: pa.Array, shape: Mapping[str, int]) -> Tensor:
        """The values of a column without nulls as float32 unit vectors [B, D].

        Raises:
            StageError: the encoder was made before the modality was known.
        """
        if modality not in self.descriptors:
            raise StageError(
                f"encoder: does not know {modality}: expected one of {', '.join(self.descriptors)}. Open a release "
                "with the bootstrap encoder of this version."
            )
        return self.encode(modality, *aspect(modality, "descriptor").collect(column, shape))

    def misfit(self, shape: Mapping[str, int]) -> str | None:
        """What is expected of the tensors and not so."""
        found = [aspect(name, "descriptor").misfit(shape) for name in self.descriptors]
        return next((expected for expected in found if expected), None)


def load_encoder(data: bytes, *, dim: int, digest: str) -> BootstrapEncoder:
    """The encoder in a safetensors file whose digest was verified.

    Raises:
        StageError: the file holds other tensors than ``bootstrap`` writes for ``dim``.
    """
    tensors = safetensors.torch.load(data)
    expected = {
        f"{modality}.{name}": list(tensor.shape)
        for modality in _modalities(tensors)
        for name, tensor in aspect(modality, "bootstrap").make_tensors(dim).items()
    }
    actual = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    if actual != expected:
        raise StageError(
            f"encoder {digest}: is not a bootstrap encoder of {dim} dimensions: expected {expected}, got {actual}. "
            "Open a release with the encoder of its configuration."
        )
    return BootstrapEncoder(tensors).eval()


def _modalities(tensors: Mapping[str, Tensor]) -> list[str]:
    """All but the optional ones that a file leaves out."""
    return [name for name, row in MODALITIES.items() if not row.is_optional or _own(tensors, name)]


def _own(tensors: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    prefix = f"{modality}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _unit(vector_BD: Tensor) -> Tensor:
    """Rows of whole numbers as float32 unit vectors; a row of zeros becomes the first axis."""
    empty = (vector_BD == 0).all(1, keepdim=True)
    first = torch.zeros_like(vector_BD)
    first[:, 0] = 1.0
    filled = torch.where(empty, first, vector_BD)
    return (filled / torch.sqrt((filled * filled).sum(1, keepdim=True))).float()
