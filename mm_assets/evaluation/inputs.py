"""What an evaluation is made from: the frozen release, the model trained on it, and the recipe's evaluation section."""

from collections.abc import Mapping

from mm_assets.checks.validations import require_passed
from mm_assets.errors import GateError
from mm_assets.evaluation.config import EvaluationConfig
from mm_assets.identity.canonical import Json, to_json
from mm_assets.identity.code import code_digest, library_versions
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.store.manifest import Input, Partition, Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref


def resolve_evaluation(
    store: Store, spec: ReleaseSpec, partition: Partition, environment: Mapping[str, Json]
) -> Recipe:
    """The recipe of an evaluation.

    Raises:
        ObjectMissingError: the release or the model does not exist.
        GateError: one of them did not pass its checks, or the model was trained on another state of the release.
    """
    release = require_passed(store, "dataset_release", partition)
    model = require_passed(store, "model", partition)
    require_made_from(store, model, release)
    return Recipe(
        asset="evaluation",
        partition=partition,
        code=code_digest("mm_assets.evaluation.evaluate"),
        params={
            "config": to_json(spec.config("evaluation", EvaluationConfig)),
            # Pillow compresses and blurs the damaged pictures; the environment names the other libraries.
            "libraries": library_versions("pillow"),
        },
        environment=environment,
        inputs=(input_of(release), input_of(model)),
    )


def input_of(ref: Ref) -> Input:
    """A release-level ref as an input."""
    return Input(asset=ref.asset, partition={"release": ref.release}, digest=ref.manifest)


def require_made_from(store: Store, ref: Ref, source: Ref) -> None:
    """Checks that what ``ref`` points to was made from what ``source`` points to now.

    Raises:
        GateError: it was made from another manifest of that asset.
    """
    used = read_manifest(store, ref.manifest).input(source.asset).digest
    if used != source.manifest:
        raise GateError(
            f"{ref.asset} {ref.release}: was made from another {source.asset}: expected {source.manifest}, got {used}. "
            f"Materialize {ref.asset} again."
        )
