"""Which models with weights from elsewhere can be run, and what their JSON files say, read without torch.

Only what is declared here is used of such files, and no code that comes with weights is run.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mm_assets.errors import UsageError

#: The libraries that compute such embeddings: their versions are parameters, and a worker with others refuses to run.
LIBRARIES = {"tokenizers": "0.23.3", "transformers": "5.23.0"}
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
#: Where what is done to pictures or sound first is described; the second is the newer form, with a section for each.
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
#: Names of all files that an encoder may have.
FILES = (CONFIG, WEIGHTS, TOKENIZER, *PREPROCESSORS)
_SECTIONS = ("image_processor", "feature_extractor")
#: Windows of the spectrograms that are converted to those of another front end.
WINDOW_MS = 25


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelType:
    """A ``model_type`` of ``config.json`` that can be run.

    Attributes:
        modalities: What it embeds.
        dim: The field that is the length of its embeddings, and the value where an older file leaves it out.
        needs: Fields of the preprocessor that are used, and what each must be.
    """

    modalities: tuple[str, ...]
    dim: tuple[str, int]
    needs: Mapping[str, str]


#: What a field of a preprocessor must be, by the words of ``ModelType.needs``.
WHOLE, NUMBER, DIVISOR, COLOURS, COLOUR_DIVISORS, NAME = (
    "a whole number above 0", "a finite number", "a finite number other than 0", "three finite numbers",
    "three finite numbers other than 0", "a name",
)  # fmt: skip

MODEL_TYPES = {
    "audio-spectrogram-transformer": ModelType(
        modalities=("audio",), dim=("hidden_size", 768),
        needs={"sampling_rate": WHOLE, "num_mel_bins": WHOLE, "max_length": WHOLE, "mean": NUMBER, "std": DIVISOR},
    ),
    "clap": ModelType(
        modalities=("text", "audio"), dim=("projection_dim", 512),
        needs={
            "sampling_rate": WHOLE, "feature_size": WHOLE, "hop_length": WHOLE, "max_length_s": WHOLE,
            "truncation": NAME, "fft_window_size": WHOLE, "frequency_min": NUMBER, "frequency_max": NUMBER,
        },
    ),
    "clip": ModelType(
        modalities=("text", "image"), dim=("projection_dim", 512),
        needs={"image_mean": COLOURS, "image_std": COLOUR_DIVISORS},
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What the JSON files of a model say.

    Attributes:
        model_type: One of ``MODEL_TYPES``.
        dim: Length of an embedding.
        expects: See ``PretrainedEncoder``.
        preprocessor: Every field of the preprocessor, of whatever section.
        files: Names of the files that are used.
    """

    model_type: str
    dim: int
    expects: dict[str, int]
    preprocessor: Mapping[str, Any]
    files: tuple[str, ...]


def describe(read: Callable[[str], bytes | None]) -> Description:
    """What the JSON files say, by a function that gives one by name, or None.

    Raises:
        UsageError: the model cannot be run here, or a file that it needs is missing or unusable.
    """
    config = _json(read, CONFIG)
    name = str(config.get("model_type"))
    kind = MODEL_TYPES.get(name)
    if kind is None:
        supported = ", ".join(f"{known} ({' and '.join(row.modalities)})" for known, row in MODEL_TYPES.items())
        raise UsageError(
            f"encoder: model_type {name!r} of {CONFIG} is not supported: expected one of {supported}. Take another."
        )
    _require_plain(config)
    used = next((file for file in PREPROCESSORS if read(file) is not None), PREPROCESSORS[0])
    preprocessor = _flattened(_json(read, used))
    for field, expected in kind.needs.items():
        if field not in preprocessor:
            raise UsageError(
                f"encoder: {used} has no {field}: expected what {name} was trained with. Save its processor again."
            )
        if not _is(preprocessor[field], expected):
            raise UsageError(
                f"encoder: {field} of {used}: expected {expected}, got {str(preprocessor[field])[:80]}. Save it again."
            )
    if "text" in kind.modalities:
        _json(read, TOKENIZER)
    return Description(
        model_type=name,
        dim=_whole({kind.dim[0]: kind.dim[1], **config}, kind.dim[0], CONFIG),
        expects=_expects(name, config, preprocessor),
        preprocessor=preprocessor,
        files=(CONFIG, WEIGHTS, used, *((TOKENIZER,) if "text" in kind.modalities else ())),
    )


def _require_plain(config: Mapping[str, Any]) -> None:
    """Refuses weights that are packed: how they become numbers again would depend on further libraries."""
    for where in (config, *(section for section in config.values() if isinstance(section, dict))):
        if where.get("quantization_config") is not None:
            raise UsageError(
                f"encoder: {CONFIG} has a quantization_config: expected weights as floating-point numbers. Save the "
                "model without quantization."
            )


def _is(value: Any, expected: str) -> bool:
    """Whether a field is what it must be."""
    if expected == NAME:
        return isinstance(value, str)
    if expected == WHOLE:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    is_list = expected in (COLOURS, COLOUR_DIVISORS)
    if is_list and (not isinstance(value, list) or len(value) != 3):
        return False
    numbers = value if is_list else [value]
    return all(
        isinstance(number, int | float)
        and not isinstance(number, bool)
        and math.isfinite(number)
        and (number or expected in (NUMBER, COLOURS))
        for number in numbers
    )


def _expects(name: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> dict[str, int]:
    """What sound must have been turned into; pictures and texts are taken as they come.

    Raises:
        UsageError: the model takes its input in a way that is not made here.
    """
    if name == "clap":
        if preprocessor["truncation"] == "fusion" or config.get("audio_config", {}).get("enable_fusion"):
            raise UsageError(
                "encoder: this clap model fuses random crops of a clip: expected truncation rand_trunc and no fusion. "
                "Take the variant without fusion."
            )
        rate, hop = (_whole(preprocessor, field, "its preprocessor") for field in ("sampling_rate", "hop_length"))
        bands = _whole(preprocessor, "feature_size", "its preprocessor")
        if 1000 * hop % rate:
            raise UsageError(
                f"encoder: hop_length {hop} of its preprocessor at {rate} Hz is no whole number of milliseconds, as "
                f"features.hop_ms is: expected a multiple of {rate // math.gcd(rate, 1000)}. Take another model."
            )
        return {"sample_rate": rate, "num_mels": bands, "hop_ms": 1000 * hop // rate, "window_ms": WINDOW_MS}
    if name == "audio-spectrogram-transformer":
        rate, bands = (_whole(preprocessor, field, "its preprocessor") for field in ("sampling_rate", "num_mel_bins"))
        return {"sample_rate": rate, "num_mels": bands, "hop_ms": 10, "window_ms": WINDOW_MS}
    return {}


def _whole(fields: Mapping[str, Any], name: str, where: str) -> int:
    value = fields[name]
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"encoder: {name} of {where}: expected a whole number above 0, got {value!r}. Save it again.")
    return value


def _json(read: Callable[[str], bytes | None], name: str) -> dict[str, Any]:
    data = read(name)
    if data is None:
        raise UsageError(f"encoder: {name} is missing: expected it beside {WEIGHTS}. Save the model's processor too.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"encoder: {name} is not JSON: {error}. Save it again.") from error
    if not isinstance(value, dict):
        raise UsageError(f"encoder: {name}: expected a JSON object, got {type(value).__name__}. Save it again.")
    return value


def _flattened(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a preprocessor, those of its sections among them."""
    fields = dict(document)
    for section in _SECTIONS:
        inner = document.get(section)
        fields |= inner if isinstance(inner, dict) else {}
    return fields
