"""A folder that transformers saved a model to, as an encoder of the store. No file is ever unpickled."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mm_assets.errors import UsageError
from mm_assets.features.pretrained import EncoderFile, PretrainedEncoder
from mm_assets.features.pretrained_types import CONFIG, MODEL_TYPES, PREPROCESSORS, TOKENIZER, WEIGHTS, describe
from mm_assets.features.pretrained_weights import require_finite
from mm_assets.store.objects import Store

#: Formats of weights that can run code when they are read.
PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderFolder:
    """What is used of a folder, and the names of what is not."""

    paths: Mapping[str, Path]
    unused: tuple[str, ...]


def read_folder(folder: Path) -> EncoderFolder:
    """The files of an encoder in a folder, as ``save_pretrained`` of transformers writes them.

    Raises:
        UsageError: a file is missing, is a pickle, or cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"encoder {folder}: is not a folder: expected one with {CONFIG} and {WEIGHTS}.")
    found = {path.name: path for path in sorted(folder.iterdir())}
    for name in found:
        if name.lower().endswith(PICKLES):
            raise UsageError(
                f"encoder {folder}: {name} is a pickle, which can run code when it is read: expected {WEIGHTS} alone. "
                "Save the weights with `save_pretrained`, which writes safetensors, and remove the pickle."
            )
    paths = {name: found[name] for name in (CONFIG, WEIGHTS, TOKENIZER, *PREPROCESSORS) if name in found}
    for name in (CONFIG, WEIGHTS):
        if name not in paths:
            raise UsageError(f"encoder {folder}: {name} is missing: expected it there. Save the model again.")
    try:
        with safe_open(paths[WEIGHTS], framework="numpy") as file:
            list(file.keys())
    except (SafetensorError, OSError) as error:
        raise UsageError(f"encoder {folder}: {WEIGHTS} cannot be read: {error}. Save the model again.") from error
    return EncoderFolder(paths=paths, unused=tuple(name for name in found if name not in paths))


def store_encoder(store: Store, folder: EncoderFolder) -> tuple[str, PretrainedEncoder]:
    """Stores the files of an encoder and the document that names them; returns the document's digest and itself.

    Raises:
        UsageError: the model cannot be run here, or a file that it needs is missing.
    """
    described = describe(lambda name: _read(folder.paths[name]) if name in folder.paths else None)
    if TOKENIZER in described.files:
        _require_tokenizer(folder.paths[TOKENIZER])
    require_finite(folder.paths[WEIGHTS])
    kept = {name: folder.paths[name] for name in described.files}
    encoder = PretrainedEncoder(
        schema="mm.encoder/1",
        model_type=described.model_type,
        dim=described.dim,
        modalities=list(MODEL_TYPES[described.model_type].modalities),
        expects=described.expects,
        files=[
            EncoderFile(name=name, digest=store.put_file(path), size_bytes=path.stat().st_size)
            for name, path in sorted(kept.items())
        ],
    )
    return store.put_bytes(encoder.encode()), encoder


def _require_tokenizer(path: Path) -> None:
    """Opens a tokenizer, which would otherwise be found out by the first shard of embeddings."""
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ModuleNotFoundError as error:
        raise UsageError(
            "encoder: its tokenizer cannot be opened here: expected the library tokenizers. Install locks/stage.txt."
        ) from error
    try:
        tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises nothing more special.
        raise UsageError(f"encoder: {path.name} is no tokenizer: {error}. Save the model's processor again.") from error


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UsageError(f"encoder: {path}: is too large: expected at most {MAX_JSON_BYTES} bytes of JSON.")
    return path.read_bytes()
