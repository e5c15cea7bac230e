"""What features and embeddings are made from: recipes, resolved without torch and without touching any data."""

from collections.abc import Mapping
from typing import Any, cast

from mm_assets.checks.validations import require_passed
from mm_assets.errors import SpecError
from mm_assets.features.bootstrap import KIND
from mm_assets.features.codecs import codec_versions
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.identity.canonical import Json, digest_json, to_json
from mm_assets.identity.code import code_digest, library_versions
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.store.manifest import Input, Partition, Recipe
from mm_assets.store.objects import Store

#: Distributions whose version can change the layout of the files; ``codec_versions`` has the decoders.
LIBRARIES = ("numpy", "pillow", "pyarrow", "soundfile", "soxr")


def resolve_features(store: Store, spec: ReleaseSpec, partition: Partition, environment: Mapping[str, Json]) -> Recipe:
    """The recipe of one shard's features; its environment is the decoders in use.

    Raises:
        ObjectMissingError: the shard has no snapshot. GateError: its snapshot did not pass.
    """
    del environment
    source = code_digest("mm_assets.features.extract")
    return Recipe(
        asset="features",
        partition=partition,
        code=digest_json({"source": source, "libraries": library_versions(*LIBRARIES)}),
        params=_params(spec.config("features", FeaturesConfig)),
        environment=codec_versions(),
        inputs=(_upstream(store, "snapshot", partition),),
    )


def resolve_embeddings(
    store: Store, spec: ReleaseSpec, partition: Partition, environment: Mapping[str, Json]
) -> Recipe:
    """The recipe of one shard's embeddings, with the encoder that the release pins.

    Raises:
        ObjectMissingError: the shard has no features. GateError: its features did not pass.
        SpecError: the release pins an encoder of another kind.
    """
    kind = spec.encoder.get("kind")
    if kind != KIND:
        raise SpecError(
            f"release {spec.release}: encoder kind {kind!r} is unknown: expected {KIND!r}. Open a release with one."
        )
    encoder = Input(asset="encoder", partition={"kind": KIND}, digest=spec.encoder["digest"])
    return Recipe(
        asset="embeddings",
        partition=partition,
        code=code_digest("mm_assets.features.embed"),
        params=_params(spec.config("encoder", EncoderConfig)),
        environment=environment,
        inputs=(_upstream(store, "features", partition), encoder),
    )


def _upstream(store: Store, asset: str, partition: Partition) -> Input:
    ref = require_passed(store, asset, partition)
    return Input(asset=asset, partition=partition.model_dump(exclude_none=True), digest=ref.manifest)


def _params(config: FeaturesConfig | EncoderConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", to_json(config))
