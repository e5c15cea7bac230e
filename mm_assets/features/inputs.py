"""What features and embeddings are made from, resolved without torch and without touching any data."""

from typing import Any, cast

from mm_assets.errors import SpecError
from mm_assets.features.bootstrap import ENCODER_FILE, KIND
from mm_assets.features.codecs import codec_versions
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.identity.canonical import to_json
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.store.manifest import Input, NamedDigest


def resolve_features(context: InputContext) -> Resolved:
    """What one shard's features are made from; their environment is the decoders in use.

    Raises:
        ObjectMissingError: the shard has no snapshot. GateError: its snapshot did not pass.
    """
    return Resolved(
        params=_params(context.spec.config("features", FeaturesConfig)),
        environment=codec_versions(),
        inputs=context.all_upstream(),
    )


def resolve_embeddings(context: InputContext) -> Resolved:
    """What one shard's embeddings are made from, with the encoder that the release pins.

    Raises:
        ObjectMissingError: the shard has no features. GateError: its features did not pass.
        SpecError: the release pins an encoder of another kind.
    """
    spec = context.spec
    kind = spec.encoder.get("kind")
    if kind != KIND:
        raise SpecError(
            f"release {spec.release}: encoder kind {kind!r} is unknown: expected {KIND!r}. Open a release with one."
        )
    digest = spec.encoder["digest"]
    encoder = Input(
        asset="encoder",
        partition={"kind": KIND},
        manifest=digest,
        outputs=[NamedDigest(name=ENCODER_FILE, digest=digest)],
    )
    return Resolved(
        params=_params(spec.config("encoder", EncoderConfig)),
        environment=context.environment,
        inputs=(*context.all_upstream(), encoder),
    )


def _params(config: FeaturesConfig | EncoderConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", to_json(config))
