"""Production moves from the model a decision was about, decisions follow from evidence, and undone moves are seen."""

from collections.abc import Callable

import pytest

from mm_assets.errors import CommitConflictError, ObjectCorruptError
from mm_assets.evaluation.report import Report
from mm_assets.lineage.verify import verify_store
from mm_assets.materialize import Workspace
from mm_assets.promotion.chain import read_production
from mm_assets.promotion.decision import DECISION_FILE, read_decision
from mm_assets.promotion.record import registry_key
from mm_assets.promotion.registry import register
from mm_assets.promotion.validate import decision_problem
from mm_assets.settings import Settings
from mm_assets.store.commit import Committed
from mm_assets.store.manifest import Partition, content_digest
from mm_assets.store.objects import Store

Promote = Callable[..., Committed]
ReportOf = Callable[..., Report]
R1 = Partition(release="r1")


def test_of_two_decisions_on_the_same_production_the_later_one_is_refused(
    store: Store, promote: Promote, report_of: ReportOf
) -> None:
    first, second = promote("r1", report_of(), right=0.5), promote("r2", report_of(), right=0.9)
    register(store, first.manifest, first.manifest_digest)
    with pytest.raises(CommitConflictError, match="moved since release r2 was decided"):
        register(store, second.manifest, second.manifest_digest)
    production = read_production(store)
    assert production is not None
    assert production.release == "r1"


def test_a_forged_decision_is_not_compared_with(store: Store, promote: Promote, report_of: ReportOf) -> None:
    honest = promote("r1", report_of(overall=0.1))
    decision = read_decision(store, honest.manifest)
    assert decision.decision == "rejected"
    forged = decision.model_copy(update={"decision": "promoted", "state": "production"}).encode()
    outputs = [
        output.model_copy(update={"digest": store.put_bytes(forged), "size_bytes": len(forged)})
        if output.name == DECISION_FILE
        else output
        for output in honest.manifest.outputs
    ]
    manifest = honest.manifest.model_copy(update={"outputs": outputs, "content": content_digest(outputs)})
    register(store, manifest, store.put_bytes(manifest.encode()))
    production = read_production(store)
    assert production is not None
    assert "does not follow from its evidence" in str(decision_problem(store, production))
    with pytest.raises(ObjectCorruptError, match="does not follow from its evidence"):
        promote("r2", report_of())


def test_a_registration_whose_registry_was_wiped_is_made_again(
    store: Store, settings: Settings, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    promote("r1", report_of())
    assert workspace.check("promotion", R1).passed
    workspace.run("registration", R1, environment={})
    assert workspace.check("registration", R1).passed
    assert workspace.find_current("registration", R1, {}) is not None
    for info in [*store.list_keys("registry/"), *store.list_keys("refs/registry/")]:
        store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{info.key}")
    fresh = Workspace(settings, store)
    assert fresh.find_current("registration", R1, {}) is None
    assert not fresh.check("registration", R1).passed
    assert "refs/registration/r1.json" in verify_store(store).corrupt
    fresh.run("registration", R1, environment={})
    assert store.read_key(registry_key("production")) is not None
    assert fresh.check("registration", R1).passed
