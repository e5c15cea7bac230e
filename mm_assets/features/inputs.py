"""What features and embeddings are made from, resolved without torch and without touching any data."""

from typing import Any, cast

from mm_assets.errors import SpecError
from mm_assets.features import production
from mm_assets.features.bootstrap import ENCODER_FILE, KIND
from mm_assets.features.codecs import codec_versions
from mm_assets.features.config import TOWERS_CODE, EncoderConfig, FeaturesConfig
from mm_assets.features.kinds import EMBEDDED, PRETRAINED
from mm_assets.features.pretrained import read_encoder
from mm_assets.features.pretrained_types import LIBRARIES
from mm_assets.identity.canonical import Json, to_json
from mm_assets.identity.code import code_digest
from mm_assets.modalities.table import PACKAGE, modality_modules
from mm_assets.modalities.text.personal_data import REDACTIONS, unknown_redactions
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.store.manifest import Input, NamedDigest
from mm_assets.store.objects import Store

#: What makes the embeddings of an encoder of towers.
TOWERS_ROOTS = ("mm_assets.features.towers", *modality_modules("column", "embedder", "tokens"))
#: What runs encoders with weights from elsewhere, beside the aspect ``pretrained`` of what they embed.
PRETRAINED_ROOT = "mm_assets.features.pretrained_models"


def resolve_features(context: InputContext) -> Resolved:
    """What one shard's features are made from; their environment is the decoders in use.

    Raises:
        ObjectMissingError: the shard has no snapshot. CheckError: its snapshot did not pass.
        SpecError: the configuration names a redaction of another version.
    """
    config = context.spec.config("features", FeaturesConfig)
    check_redactions(config)
    return Resolved(
        params=_params(config),
        environment=codec_versions(),
        inputs=context.all_upstream(),
    )


def resolve_embeddings(context: InputContext) -> Resolved:
    """What one shard's embeddings are made from, with the encoder that the release pins.

    Raises:
        ObjectMissingError: the shard has no features. CheckError: its features did not pass.
        SpecError: the release pins an encoder of another kind.
    """
    spec = context.spec
    kind = spec.encoder.get("kind")
    if kind not in (KIND, production.KIND, PRETRAINED):
        raise SpecError(
            f"release {spec.release}: encoder kind {kind!r} is unknown: expected {KIND!r}, {production.KIND!r} or "
            f"{PRETRAINED!r}. Open a release with one."
        )
    digest = spec.encoder["digest"]
    files, params = _pretrained(context.store, digest) if kind == PRETRAINED else _single(kind, digest)
    encoder = Input(asset="encoder", partition={"kind": kind}, manifest=digest, outputs=files)
    return Resolved(
        params={**_params(spec.config("encoder", EncoderConfig)), **params},
        environment=context.environment,
        inputs=(*context.all_upstream(), encoder),
    )


def _single(kind: str, digest: str) -> tuple[list[NamedDigest], dict[str, Json]]:
    """The only file of an encoder that is made here, and the parameters that it adds."""
    # Edits of the training network change the code of encoders that are made of one, and of no other.
    params: dict[str, Json] = {TOWERS_CODE: code_digest(*TOWERS_ROOTS)} if kind == production.KIND else {}
    return [NamedDigest(name=ENCODER_FILE, digest=digest)], params


def _pretrained(store: Store, digest: str) -> tuple[list[NamedDigest], dict[str, Json]]:
    """The files of an encoder with weights from elsewhere, and what else decides what it gives."""
    encoder = read_encoder(store, digest)
    roots = (PRETRAINED_ROOT, *(f"{PACKAGE}.{name}.pretrained" for name in encoder.modalities))
    facts: dict[str, Json] = {
        "code": code_digest(*roots),
        "libraries": dict(LIBRARIES),
        "model_type": encoder.model_type,
        EMBEDDED: list(encoder.modalities),
    }
    return [NamedDigest(name=file.name, digest=file.digest) for file in encoder.files], {PRETRAINED: facts}


def check_redactions(config: FeaturesConfig) -> None:
    """Refuses a redaction that this version does not make, before anything is made without it.

    Raises:
        SpecError: a name is unknown, has another version, or comes twice.
    """
    unknown = unknown_redactions(config.redactions)
    if unknown:
        raise SpecError(
            f"features config: redaction {unknown[0]}: is unknown or named twice: expected some of "
            f"{', '.join(REDACTIONS)}, each once. Name the kinds of personal data with the versions of these patterns."
        )


def _params(config: FeaturesConfig | EncoderConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", to_json(config))
