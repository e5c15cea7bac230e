"""Runs encoders with weights from elsewhere with transformers, from verified files and without any network.

The features are what they are for every encoder: a text's bytes, a picture's square, a clip's mel bands. They are
brought to the form that a model was trained on as far as they allow (decision 0026 says how near that is). Rows are
embedded ``BATCH_ROWS`` at a time in the order of the shard, whatever the placement says: the last bits of a product of
matrices depend on their shapes.

Legend of shapes: B samples, T tokens, F frames, M mel bands, H and W pixels, C channels, D embedding.
"""

import importlib
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm_assets.errors import StageError
from mm_assets.features.mel_bands import FrontEnd, converted, our_front_end
from mm_assets.features.pretrained_types import LIBRARIES, MODEL_TYPES, TOKENIZER, Description, describe
from mm_assets.modalities.table import aspect
from mm_assets.store.job import Job

BATCH_ROWS = 64
#: What a modality knows about such encoders.
ASPECT = "pretrained"
#: Class of transformers by type of model.
CLASSES = {"audio-spectrogram-transformer": "ASTModel", "clap": "ClapModel", "clip": "CLIPModel"}
#: dB of a band without any power, which pads clips for clap.
SILENCE_DB = -100.0
#: Power of a band below which the front end of spectrogram transformers cuts.
MEL_FLOOR = 1.192092955078125e-07

Frames = npt.NDArray[np.float32]


class PretrainedModel(nn.Module):
    """A model of transformers, as unit vectors of one length."""

    batch_rows = BATCH_ROWS

    def __init__(self, described: Description, folder: Path) -> None:
        super().__init__()
        self.dim = described.dim
        self.modalities = MODEL_TYPES[described.model_type].modalities
        self.expects = described.expects
        self.kind = described.model_type
        self.preprocessor = described.preprocessor
        self.model: Any = _load_model(described.model_type, folder)
        self.front_end = _front_end(self.kind, self.preprocessor) if "audio" in self.modalities else None
        self.tokenizer: Any = _tokenizer(folder / TOKENIZER) if "text" in self.modalities else None

    def misfit(self, shape: Mapping[str, int]) -> str | None:
        """What is expected of the tensors and not so."""
        wrong = [name for name, value in self.expects.items() if shape.get(name, value) != value]
        return ", ".join(f"{name} {self.expects[name]}, got {shape[name]}" for name in wrong) or None

    def encode_column(self, modality: str, column: pa.Array, shape: Mapping[str, int]) -> Tensor:
        """The values of a column without nulls as float32 unit vectors [B, D]."""
        values = aspect(modality, ASPECT).collect(column, shape)
        with _strict():
            vector_BD = {"text": self._texts, "image": self._pictures, "audio": self._clips}[modality](values)
            return F.normalize(vector_BD.float(), dim=-1)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.parameters()).device

    def _texts(self, texts: Sequence[str]) -> Tensor:
        """Texts by the model's own tokens, cut at its length and padded to the longest of the batch."""
        config = self.model.config.text_config
        # The positions of the text model of clap begin behind its padding token's.
        longest = config.max_position_embeddings - (config.pad_token_id + 1 if self.kind == "clap" else 0)
        self.tokenizer.enable_truncation(longest)
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        length = max(1, *(len(ids) for ids in tokens))
        ids_BT = torch.full((len(tokens), length), config.pad_token_id)
        mask_BT = torch.zeros_like(ids_BT)
        for row, ids in enumerate(tokens):
            ids_BT[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            mask_BT[row, : len(ids)] = 1
        found = self.model.get_text_features(input_ids=ids_BT.to(self.device), attention_mask=mask_BT.to(self.device))
        return _pooled(found)

    def _pictures(self, pixels: npt.NDArray[np.float32]) -> Tensor:
        """Pictures at the model's size, by the mean and deviation of what it was trained on."""
        size = self.model.config.vision_config.image_size
        pixels_BCHW = torch.from_numpy(pixels).to(self.device)
        if pixels_BCHW.shape[-1] != size:
            pixels_BCHW = F.interpolate(pixels_BCHW, (size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
        mean, deviation = (
            torch.tensor(self.preprocessor[name], device=self.device).reshape(1, 3, 1, 1)
            for name in ("image_mean", "image_std")
        )
        return _pooled(self.model.get_image_features(pixel_values=(pixels_BCHW - mean) / deviation))

    def _clips(self, clips: Sequence[Frames]) -> Tensor:
        """Clips by the bands of the model's own front end, in its units."""
        other = self.front_end
        assert other is not None
        ours = our_front_end(other.sample_rate, clips[0].shape[1])
        bands = [converted(clip, ours, other) for clip in clips]
        if self.kind == "clap":
            decibels_BFM = np.stack([_decibels(clip, self.preprocessor) for clip in bands])
            values_BCFM = torch.from_numpy(decibels_BFM)[:, None].to(self.device)
            return _pooled(self.model.get_audio_features(input_features=values_BCFM))
        values_BFM = np.stack([_normalized(clip, self.preprocessor) for clip in bands])
        return _pooled(self.model(input_values=torch.from_numpy(values_BFM).to(self.device)))


def load_pretrained(job: Job, *, dim: int) -> PretrainedModel:
    """The encoder whose files the action names, verified by digest.

    Raises:
        StageError: the libraries are missing or of another version, or the weights are not those of the model.
    """
    folder = job.workdir / "encoder"
    (entry,) = job.inputs_of("encoder")
    for file in entry.outputs:
        job.store.fetch(file.digest, folder, file.name)
    described = describe(lambda name: _bytes(folder / name))
    if described.dim != dim:
        raise StageError(f"encoder: gives other embeddings: expected {dim} numbers, got {described.dim}.")
    return PretrainedModel(described, folder).eval()


def _load_model(model_type: str, folder: Path) -> Any:
    transformers = _library()
    transformers.utils.logging.disable_progress_bar()
    kind = getattr(transformers, CLASSES[model_type])
    try:
        model, found = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise StageError(
            f"encoder: its weights cannot be loaded as {CLASSES[model_type]}: {error}. Save the model again with "
            "`save_pretrained`, and add it under another name."
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        # What is missing would be drawn at random.
        raise StageError(
            f"encoder: {len(missing)} of its weights are missing: expected {missing[0]} in model.safetensors. Save the "
            "whole model, and add it under another name."
        )
    return model


def _library() -> Any:
    """The library that runs the models, of the version that the action names.

    Raises:
        StageError: it is missing, or has another version.
    """
    for name, expected in LIBRARIES.items():
        try:
            actual = metadata.version(name)
        except metadata.PackageNotFoundError:
            actual = "none"
        if actual != expected:
            raise StageError(
                f"encoder: needs {name}: expected version {expected}, got {actual}. Install locks/stage.txt there."
            )
    return importlib.import_module("transformers")


def _tokenizer(path: Path) -> Any:
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    return tokenizer


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _pooled(found: Any) -> Tensor:
    return found if isinstance(found, Tensor) else found.pooler_output


def _front_end(kind: str, preprocessor: Mapping[str, Any]) -> FrontEnd:
    """The one that models of this type were trained behind.

    Source: ``ASTFeatureExtractor`` and ``ClapFeatureExtractor`` of transformers.
    """
    make = importlib.import_module("transformers.audio_utils").mel_filter_bank
    rate = int(preprocessor["sampling_rate"])
    with warnings.catch_warnings():
        # Bands that are narrower than a bin are empty, there as here.
        warnings.simplefilter("ignore", UserWarning)
        if kind == "clap":
            size = int(preprocessor["fft_window_size"])
            filters = make(
                num_frequency_bins=size // 2 + 1, num_mel_filters=int(preprocessor["feature_size"]),
                min_frequency=preprocessor["frequency_min"], max_frequency=preprocessor["frequency_max"],
                sampling_rate=rate, norm="slaney", mel_scale="slaney",
            )  # fmt: skip
            window = np.hanning(size + 1)[:-1]
            return FrontEnd(filters=filters, sample_rate=rate, window_power=float((window**2).sum()))
        filters = make(
            num_frequency_bins=257, num_mel_filters=int(preprocessor["num_mel_bins"]), min_frequency=20,
            max_frequency=rate // 2, sampling_rate=rate, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
        )  # fmt: skip
    power = float((np.hanning(400) ** 2).sum())
    return FrontEnd(filters=filters, sample_rate=rate, window_power=power, emphasis=0.97)


def _decibels(frames: Frames, preprocessor: Mapping[str, Any]) -> Frames:
    """Frames in dB, as often as they fit in the model's length, and silence after that.

    Its windows are centred on multiples of the hop and ours begin there: its frame i is our frame i - 1.
    """
    num_samples = int(preprocessor["max_length_s"]) * int(preprocessor["sampling_rate"])
    length = num_samples // int(preprocessor["hop_length"]) + 1
    delayed = np.concatenate([frames[:1], frames])[:length]
    whole = np.tile(10.0 * delayed, (max(1, length // len(delayed)), 1))
    return np.pad(whole, ((0, length - len(whole)), (0, 0)), constant_values=SILENCE_DB).astype(np.float32)


def _normalized(frames: Frames, preprocessor: Mapping[str, Any]) -> Frames:
    """Natural logarithms, cut or filled with zeros to the model's length, by the mean and deviation of its data."""
    length = int(preprocessor["max_length"])
    natural = np.maximum(np.log(10.0) * frames[:length], np.log(MEL_FLOOR))
    padded = np.pad(natural, ((0, length - len(natural)), (0, 0)))
    if preprocessor.get("do_normalize", True):
        padded = (padded - preprocessor["mean"]) / (2.0 * preprocessor["std"])
    return padded.astype(np.float32)


@contextmanager
def _strict() -> Generator[None]:
    """Kernels whose results depend on their inputs alone, and all bits of a float; as it was before afterwards."""
    cuda: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    before = (torch.are_deterministic_algorithms_enabled(), cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    torch.use_deterministic_algorithms(True)
    cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = False, False, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before[1:]
