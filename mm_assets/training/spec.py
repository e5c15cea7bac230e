"""The training spec: one JSON that says everything about a run, written beside the weights it led to."""

from collections.abc import Mapping

from mm_assets.identity.canonical import Json, digest_json
from mm_assets.store.action import read_objects
from mm_assets.store.job import Job

SCHEMA = "mm.training/2"


def training_spec(job: Job) -> dict[str, Json]:
    """``mm.training/2`` of a run; its ``fingerprint`` covers every other key.

    Which code ran is in the manifest: code that was proven to make the same bytes has the same spec.
    """
    training = job.params["training"]
    assert isinstance(training, Mapping)
    body: dict[str, Json] = {
        "schema": SCHEMA,
        "inputs": read_objects(job.inputs),
        "seed": job.params["seed"],
        "plan": job.params["plan"],
        "restart": "resume from the last checkpoint",
        "environment": job.environment,
        **training,
    }
    return {**body, "fingerprint": digest_json(body)}
