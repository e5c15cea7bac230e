"""What an evaluation is made from: the frozen release, the model trained on it, and the evaluation's configuration."""

from mm_assets.evaluation.config import EvaluationConfig
from mm_assets.identity.canonical import to_json
from mm_assets.identity.code import library_versions
from mm_assets.releases.inputs import InputContext, Resolved


def resolve_evaluation(context: InputContext) -> Resolved:
    """What an evaluation would be made from now.

    Raises:
        ObjectMissingError: the release or the model does not exist.
        CheckError: one of them did not pass its check, or the model was trained on other data.
    """
    return Resolved(
        params={
            "config": to_json(context.spec.config("evaluation", EvaluationConfig)),
            # Pillow compresses and blurs the damaged pictures; the environment names the other libraries.
            "libraries": library_versions("pillow"),
        },
        environment=context.environment,
        inputs=context.all_upstream(),
    )
