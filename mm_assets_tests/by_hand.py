"""Partitions committed by hand: a stage's tests depend on the formats it reads, and on nothing that makes them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mm_assets.checks.validations import Finding, record_validation
from mm_assets.configurations import SMOKE, PipelineConfig
from mm_assets.identity.canonical import Json, digest_json, to_json
from mm_assets.materialize import Workspace, packaged_rules
from mm_assets.releases.spec import SCHEMA, DropPin, ReleasePin, ReleaseSpec, write_spec
from mm_assets.store.action import Action
from mm_assets.store.commit import Attempt, Committed, OutputFile, StageResult
from mm_assets.store.manifest import Input, NamedDigest, Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref

CODE = digest_json("code")


def open_by_hand(
    store: Store,
    release: str = "r1",
    *,
    config: PipelineConfig = SMOKE,
    num_shards: int = 1,
    sections: Mapping[str, Json] | None = None,
    encoder: Mapping[str, str] | None = None,
    parent: ReleasePin | None = None,
) -> ReleaseSpec:
    """Opens a release over a drop that does not exist, under the packaged rules; ``sections`` replace whole ones."""
    configuration = {
        field.name: to_json(getattr(config, field.name)) for field in fields(config) if field.name != "seed"
    }
    pin = DropPin(source="zoo", drop="d1", digest=digest_json("drop"), source_digest=digest_json("source"))
    spec = ReleaseSpec(
        schema=SCHEMA, release=release, drops=[pin], parent=parent, data_of=None, exclusions=[], policy={},
        rules={name: store.put_bytes(data) for name, data in packaged_rules().items()}, encoder=dict(encoder or {}),
        seed=config.seed, num_shards=num_shards, configuration={**configuration, **(sections or {})},
    )  # fmt: skip
    return write_spec(store, spec)


def action_of(
    asset: str, inputs: Sequence[Input] = (), params: Mapping[str, Json] | None = None, code: str = CODE
) -> Action:
    """An action of these inputs and nothing else."""
    return Action(asset=asset, code=code, params=dict(params or {}), environment={}, inputs=tuple(inputs))


def commit_files(
    store: Store,
    action: Action,
    partition: Partition,
    files: Mapping[str, Path],
    *,
    stats: Mapping[str, Json] | None = None,
    num_rows: Mapping[str, int] | None = None,
) -> Committed:
    """Commits files as what the action led to; what they hold becomes a parameter of it."""
    outputs = tuple(
        OutputFile(name=name, path=path, media_type="application/octet-stream", num_rows=(num_rows or {}).get(name))
        for name, path in files.items()
    )
    held: dict[str, Json] = {name: store.put_file(path) for name, path in files.items()}
    action = replace(action, params={**action.params, "by_hand": held})
    return Attempt(store, action, partition).commit_result(StageResult(files=outputs, stats=stats or {}))


def make_by_hand(
    workspace: Workspace, asset: str, release: str, files: Mapping[str, Path], **options: Any
) -> Committed:
    """Commits files as an asset of a release, made from what its inputs are now, with a passed check.

    What gathers shards is made from nothing.
    """
    partition = Partition(release=release)
    action = action_of(asset) if asset == "dataset_release" else workspace.resolve(asset, partition, {})
    committed = commit_files(workspace.store, action, partition, files, **options)
    judge_by_hand(workspace, asset, partition)
    return committed


def judge_by_hand(workspace: Workspace, asset: str, partition: Partition, *, problem: str = "") -> None:
    """Puts the outcome of a check of what the partition is now on record: passed, unless there is a ``problem``."""
    subject = workspace.subject(require_ref(workspace.store, asset, partition))
    finding = Finding(rule="by_hand", passed=not problem, detail=problem or "good")
    record_validation(workspace.store, subject, [finding])


def input_of(committed: Committed, *names: str, role: str | None = None) -> Input:
    """The named outputs (default: all) of a committed partition as an input."""
    outputs = [
        NamedDigest(name=output.name, digest=output.digest)
        for output in committed.manifest.outputs
        if not names or output.name in names
    ]
    manifest = committed.manifest
    return Input(
        asset=manifest.asset,
        partition=manifest.partition.names,
        manifest=committed.manifest_digest,
        outputs=outputs,
        role=role,
    )
