"""What a promotion decision is made from: the evaluation, what it judged, and the thresholds in force."""

from collections.abc import Mapping

from mm_assets.checks.validations import require_passed
from mm_assets.evaluation.inputs import input_of, require_made_from
from mm_assets.identity.canonical import Json, digest_json
from mm_assets.identity.code import code_digest, library_versions
from mm_assets.promotion.config import read_thresholds
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.settings import read_settings
from mm_assets.store.manifest import Partition, Recipe
from mm_assets.store.objects import Store

THRESHOLDS_FILE = "promotion.yaml"


def resolve_promotion(store: Store, spec: ReleaseSpec, partition: Partition, environment: Mapping[str, Json]) -> Recipe:
    """The recipe of a decision. The whole content of the thresholds file is in it, so the decision explains itself.

    Raises:
        ObjectMissingError: an input does not exist.
        GateError: an input did not pass its checks, or is about another model or release.
        SettingsError: the thresholds file is unusable.
    """
    release, model, evaluation = (
        require_passed(store, asset, partition) for asset in ("dataset_release", "model", "evaluation")
    )
    require_made_from(store, model, release)
    require_made_from(store, evaluation, release)
    require_made_from(store, evaluation, model)
    return Recipe(
        asset="promotion",
        partition=partition,
        code=digest_json(
            {"source": code_digest("mm_assets.promotion.decide"), "libraries": library_versions("pyyaml", "pydantic")}
        ),
        params={"thresholds": read_thresholds(read_settings().config_file(THRESHOLDS_FILE)).to_json()},
        environment={},
        inputs=(input_of(release), input_of(model), input_of(evaluation)),
    )
