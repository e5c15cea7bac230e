"""The training spec: one JSON that says everything about a run, written beside the weights it led to."""

from collections.abc import Mapping

from mm_assets.identity.canonical import Json, digest_json
from mm_assets.store.manifest import Recipe

SCHEMA = "mm.training/1"


def training_spec(recipe: Recipe) -> dict[str, Json]:
    """``mm.training/1`` of a model recipe; its ``fingerprint`` covers every other key."""
    training = recipe.params["training"]
    assert isinstance(training, Mapping)
    body: dict[str, Json] = {
        "schema": SCHEMA,
        "release": recipe.partition.release,
        "recipe_fingerprint": recipe.fingerprint,
        "code": recipe.code,
        "inputs": {entry.asset: entry.digest for entry in recipe.inputs},
        "seed": recipe.params["seed"],
        "plan": recipe.params["plan"],
        "restart": "resume from the last checkpoint",
        "environment": recipe.environment,
        **training,
    }
    return {**body, "fingerprint": digest_json(body)}
