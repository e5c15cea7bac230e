"""``mm replay``: random pieces of a training run again, and what that proves about the model."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mm_assets.errors import ObjectCorruptError, ObjectMissingError, UsageError
from mm_assets.identity.canonical import Json
from mm_assets.identity.randomness import keyed_rng
from mm_assets.launchers.environment import stage_environment
from mm_assets.lineage.records import find_model, flat
from mm_assets.materialize import code_of
from mm_assets.pipeline import asset_named
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.training.differences import Part, differing_tensors, differing_values
from mm_assets.training.lanes import world_size_of
from mm_assets.training.replay import (
    Again,
    Segment,
    checkpoints_of,
    find_chain_problem,
    find_other_shape,
    has_config,
    prepare_replay,
    require_world_size,
    run_segment,
    segments_of,
)

#: BITWISE: the same bits. TOLERANCE: other bits within ``training.differences.TOLERANCE``, on another machine or code.
#: NOT_COMPARABLE: others, which that may explain. MISMATCH: others, which nothing explains.
Verdict: TypeAlias = Literal["BITWISE", "TOLERANCE", "NOT_COMPARABLE", "MISMATCH"]
ORDER: tuple[Verdict, ...] = ("BITWISE", "TOLERANCE", "NOT_COMPARABLE", "MISMATCH")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A fact about code or environment that is not what it was when the model was made."""

    name: str
    then: Json
    now: Json


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """A segment that was run again; ``expected`` and ``actual`` are digests of the state after it."""

    first_step: int
    last_step: int
    expected: str
    actual: str
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """What a replay found.

    Attributes:
        model: Digest of the model's manifest.
        verdict: The worst of all segments.
        segments: Those that were run again.
        facts: What is not as it was.
        difference: The first difference: an input, or step and lane, or a tensor; None where the bits are the same.
        world_size: Processes that trained.
    """

    model: str
    verdict: Verdict
    segments: tuple[Replayed, ...]
    facts: tuple[Fact, ...]
    difference: str | None
    world_size: int


def replay_model(
    store: Store,
    ref: str,
    *,
    num_segments: int,
    seed: int,
    world_size: int | None,
    cpus: int = 1,
    accelerators: int = 0,
    on_segment: Callable[[Segment], None] = lambda segment: None,
) -> ReplayReport:
    """Runs some segments of a model again and compares every bit of what they lead to.

    Args:
        store: Holds the model and all that it was made from.
        ref: A release, a manifest digest or ``production``.
        num_segments: How many; all, if the model has no more.
        seed: Of their choice.
        world_size: Processes to train on, as many as ``cpus`` allow where None; the model's may have been others.
        cpus: Processors that may be used.
        accelerators: Those to train on, one per process; none trains on processors.
        on_segment: Called before each.

    Raises:
        UsageError: there is no such model, it is of the first version, or the numbers do not fit it.
        ObjectMissingError: an input of it is gone. StageError: a process failed.
    """
    digest, model = find_model(store, ref)
    if num_segments < 1:
        raise UsageError(f"--segments {num_segments}: trains nothing again: expected 1 or more. Name how many.")
    records = checkpoints_of(store, model)
    num_lanes = int(model.params["plan"]["num_lanes"])
    num_processes = (
        world_size if world_size is not None else world_size_of({"cpus": cpus, "accelerators": accelerators}, num_lanes)
    )
    require_world_size(num_processes, num_lanes)
    environment = stage_environment(accelerators)
    facts = tuple(changed_facts(model, code=code_of(asset_named("model")), environment=environment))
    unlike: Verdict = "NOT_COMPARABLE" if facts else "MISMATCH"
    replayed: list[Replayed] = []

    def report(verdict: Verdict, difference: str | None) -> ReplayReport:
        return ReplayReport(
            model=digest,
            verdict=verdict,
            segments=tuple(replayed),
            facts=facts,
            difference=difference,
            world_size=num_processes,
        )

    problem = find_chain_problem(model, records)
    if problem is not None:
        return report("MISMATCH", f"checkpoints.json: {problem}")
    with scratch_folder("replay") as folder:
        try:
            job = prepare_replay(store, model, folder)
        except ObjectMissingError as error:
            raise ObjectMissingError(f"model {model.partition.path}: cannot be trained again: {error}") from error
        except ObjectCorruptError as error:
            return report("MISMATCH", f"input: {error}")
        if not has_config(store, model, job):
            return report(unlike, "config.json: the inputs lead to another network than the model's")
        shape = find_other_shape(store, model, job, folder)
        if shape is not None:
            return report(unlike, f"weights.safetensors: {shape}")
        differences: list[str] = []
        for segment in _choose(segments_of(records), num_segments, seed):
            on_segment(segment)
            place = folder / f"segment-{segment.first_step}"
            place.mkdir()
            again = run_segment(
                store, job, segment, place, environment=environment, world_size=num_processes, accelerators=accelerators
            )
            parts = list(_parts(store, segment, again, place))
            differences += [f"{part.where}: {part.detail}" for part in parts]
            replayed.append(_replayed(segment, again, judge(parts, facts)))
    return report(worst(entry.verdict for entry in replayed), next(iter(differences), None))


def _replayed(segment: Segment, again: Again, verdict: Verdict) -> Replayed:
    return Replayed(
        first_step=segment.first_step,
        last_step=segment.last_step,
        expected=segment.end.state,
        actual=again.record.state,
        verdict=verdict,
    )


def changed_facts(model: Manifest, *, code: str, environment: Mapping[str, Json]) -> Iterator[Fact]:
    """What of code and environment is not as the model's manifest says."""
    if model.code != code:
        yield Fact(name="code", then=model.code, now=code)
    then, now = flat(model.environment), flat(environment)
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            yield Fact(name=name, then=then.get(name), now=now.get(name))


def judge(parts: list[Part], facts: tuple[Fact, ...]) -> Verdict:
    """What the differences of one segment mean. On the same machine with the same code there must be none."""
    if not parts:
        return "BITWISE"
    if not facts:
        return "MISMATCH"
    return "TOLERANCE" if all(part.is_close for part in parts if _counts(part)) else "NOT_COMPARABLE"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The one that proves least about the model."""
    return max(verdicts, key=ORDER.index)


def _counts(part: Part) -> bool:
    """Moments of the optimizer are compared bit by bit only: they may be next to zero."""
    return not part.where.startswith("optimizer.")


def _parts(store: Store, segment: Segment, again: Again, folder: Path) -> Iterator[Part]:
    if again.record.segment != segment.end.segment:
        expected = json.loads(store.get_bytes(segment.end.segment))
        yield from _or_bytes("segment", differing_values(expected, again.read_segment()))
    if again.record.state != segment.end.state:
        expected = store.fetch(segment.end.state, folder, "expected.safetensors")
        yield from _or_bytes("state", differing_tensors(expected, again.state))


def _or_bytes(name: str, parts: Iterator[Part]) -> Iterator[Part]:
    """The parts, or of files that differ in no value that they are for."""
    found = list(parts)
    yield from found or [Part(where=name, detail="other bytes, equal values", is_close=True)]


def _choose(segments: list[Segment], num_segments: int, seed: int) -> list[Segment]:
    chosen = keyed_rng("replay", seed).permutation(len(segments))[:num_segments]
    return [segments[index] for index in sorted(chosen.tolist())]
