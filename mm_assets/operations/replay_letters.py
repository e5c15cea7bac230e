"""Replaying dead letters after a fix: only the shards that hold some are computed again, and no good sample changes.

After a change of code, the shards of the release itself; after a change of ceilings, which are part of a configuration,
those of another release of the same data. Everything is computed, compared and checked before anything is committed:
nothing is, unless every sample that was good before has the same row and the same tensors as before. A replay that is
killed while it commits is run again, and commits the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.checks.exclusions import read_exclusions
from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.errors import CheckError, UsageError
from mm_assets.lineage.letters import ASSETS, LetterFilter, letters_of, own_place
from mm_assets.lineage.records import Row
from mm_assets.materialize import Workspace
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.scratch import scratch_folder
from mm_assets.snapshot.blobs import PART_COLUMNS
from mm_assets.store.action import Action
from mm_assets.store.commit import Attempt, Staged, StageResult
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref, read_ref
from mm_assets.store.tables import map_arrow, read_parquet

#: The table that says which samples a stage passes on, and columns of it that move when samples are added.
TABLES = {"snapshot": "samples.parquet", "features": "signals.parquet"}
MOVED = "_offset"
MAX_NAMED = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """What a replay did: shards that were computed again, and samples that are good now or still dead.

    ``release`` is where the recovered samples are. Ids are those of letters; what has none is named by its object.
    """

    release: str
    computed: tuple[str, ...]
    recovered: tuple[str, ...]
    still_dead: tuple[str, ...]


def replay_letters(
    workspace: Workspace,
    release: str,
    wanted: LetterFilter,
    *,
    into: str | None = None,
    configuration: str | None = None,
    on_shard: Callable[[str], None] = lambda path: None,
) -> ReplayReport:
    """Replays the dead letters of a release's own shards.

    Args:
        workspace: Where the release is.
        release: An open release whose shards are materialized.
        wanted: Which letters.
        into: Another release of the same data, opened with ``configuration``; None for the release itself.
        configuration: Its name.
        on_shard: Called with each shard before it is computed.

    Raises:
        UsageError: the release has no shards of its own, or only one of ``into`` and ``configuration`` is given.
        CheckError: what was good before would change, or a check failed.
    """
    spec = workspace.spec(release)
    if not spec.num_shards:
        raise UsageError(f"release {release}: has no shards of its own. Replay the release whose data it uses.")
    if (into is None) != (configuration is None):
        raise UsageError("--into: goes with --config: expected both (new ceilings) or neither (new code). Give both.")
    target = spec if into is None else _open(workspace, spec, into, str(configuration))
    before = {shard: list(_letters(workspace.store, release, shard, wanted)) for shard in spec.shards()}
    staged: list[tuple[Attempt, Staged]] = []
    for shard in (shard for shard, letters in before.items() if letters):
        on_shard(shard)
        source, partition = (Partition(release=name, shard=shard) for name in (release, target.release))
        staged += _stage_shard(workspace, source, partition)
    # The last stage first: until its snapshot is there a shard has its letters, by which the next replay finds it.
    for attempt, made in reversed(staged):
        attempt.commit_staged(made)
    after = {
        shard: {_name(letter) for letter in _letters(workspace.store, target.release, shard)}
        for shard, letters in before.items()
        if letters
    }
    named = {shard: {_name(letter) for letter in letters} for shard, letters in before.items()}
    return ReplayReport(
        release=target.release,
        computed=tuple(dict.fromkeys(made.manifest.partition.path for _, made in staged)),
        recovered=tuple(sorted(name for shard, names in named.items() for name in names - after.get(shard, set()))),
        still_dead=tuple(sorted(name for shard, names in named.items() for name in names & after.get(shard, set()))),
    )


def _open(workspace: Workspace, spec: ReleaseSpec, into: str, configuration: str) -> ReleaseSpec:
    """A release of the same data with another configuration, under the rules in force for the first."""
    return open_named_release(
        workspace,
        ReleaseRequest(
            release=into,
            drops=tuple((pin.source, pin.drop) for pin in spec.drops),
            parent=spec.parent.release if spec.parent else None,
            policy=_pinned_name(spec.policy),
            configuration=configuration,
            exclusions=(*spec.exclusions, *read_exclusions(workspace.rules(spec.release)).samples),
            use=spec.use,
            like=spec.release,
            num_shards=spec.num_shards,
        ),
    )


def _pinned_name(policy: Mapping[str, str]) -> str:
    """``NAME`` or ``NAME@VERSION`` of the policy that a spec pins."""
    return f"{policy['name']}@{policy['version']}" if "version" in policy else str(policy["name"])


def _letters(store: Store, release: str, shard: str, wanted: LetterFilter | None = None) -> Iterator[Row]:
    place = own_place(store, Partition(release=release, shard=shard))
    for asset in ASSETS:
        if asset in place.manifests:
            for letter in letters_of(store, read_manifest(store, place.manifests[asset]), place):
                if wanted is None or wanted.takes(letter):
                    yield letter


def _name(letter: Row) -> str:
    return str(letter["id"] or letter["object"])


def _stage_shard(workspace: Workspace, source: Partition, target: Partition) -> list[tuple[Attempt, Staged]]:
    """Computes a shard again where its action is another one now, compares and checks it; commits nothing.

    Returns:
        What has to be committed, in the order of the stages.
    """
    made: list[tuple[Attempt, Staged]] = []
    with workspace.supposing() as suppose:
        for asset in ASSETS:
            ref = read_ref(workspace.store, asset, source).ref
            if ref is None:
                # The release got no further than the stage before.
                return made
            action = workspace.resolve(asset, target, {})
            current = read_ref(workspace.store, asset, target).ref
            if current is None or current.fingerprint != action.fingerprint:
                attempt = Attempt(workspace.store, action, target)
                made.append((attempt, _staged(workspace, attempt, action, target, before=ref)))
                suppose(made[-1][1].ref)
            record = workspace.check(asset, target)
            if not record.passed:
                raise CheckError(
                    f"{asset} {target.path}: fails its check after the replay: {record.failures}. Nothing was "
                    f"committed: exclude what is dead with `mm release exclude --release {target.release}`, or set "
                    "other rules with `mm rules set`."
                )
    return made


def _staged(workspace: Workspace, attempt: Attempt, action: Action, target: Partition, *, before: Ref) -> Staged:
    with scratch_folder("replay") as folder:
        result = workspace.compute(action, target, folder)
        _require_untouched(workspace.store, read_manifest(workspace.store, before.manifest), result, folder / "before")
        return attempt.stage_result(result)


def _require_untouched(store: Store, before: Manifest, result: StageResult, folder: Path) -> None:
    """Refuses a result in which a sample that was good before is gone or other than it was.

    Raises:
        CheckError: there is one.
    """
    name = TABLES[before.asset]
    paths = {file.name: file.path for file in result.files}
    folder.mkdir()
    old = read_parquet(store.fetch(before.output(name).digest, folder, name))
    changed = _changed(old, read_parquet(paths[name]))
    if not changed and before.asset == "features":
        tensors = map_arrow(store.fetch(before.output("tensors.arrow").digest, folder, "tensors.arrow"))
        changed = _changed(tensors, map_arrow(paths["tensors.arrow"]))
    if changed:
        shown = ", ".join(changed[:MAX_NAMED])
        raise CheckError(
            f"{before.asset} {before.partition.path}: the fix changes {len(changed)} samples that were good: {shown}. "
            f"Nothing was committed. Run `mm run --release {before.partition.release}` if it is meant."
        )


def _changed(old: pa.Table, new: pa.Table) -> list[str]:
    """Ids of rows of ``old`` that ``new`` lacks or holds with other values, in the columns that both have."""
    places = pc.index_in(old["id"], new["id"].combine_chunks())  # pyright: ignore[reportAttributeAccessIssue]
    is_there = places.is_valid()
    missing = old["id"].filter(pc.invert(is_there)).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    columns = [name for name in old.schema.names if name in new.schema.names and not name.endswith(MOVED)]
    kept, found = _unmoved(old.select(columns).filter(is_there)), _unmoved(new.select(columns).take(places.drop_null()))
    if kept.equals(found):
        return missing
    rows = zip(kept.to_batches(max_chunksize=1), found.combine_chunks().to_batches(max_chunksize=1), strict=True)
    return missing + [one["id"][0].as_py() for one, other in rows if not one.equals(other)]


def _unmoved(table: pa.Table) -> pa.Table:
    """The table with the parts of samples without their offsets."""
    for name in table.column_names:
        kind = table.schema.field(name).type
        if name not in PART_COLUMNS or not pa.types.is_list(kind):
            continue
        fields = [field for field in kind.value_type if field.name != MOVED.strip("_")]
        column = table.column(name).cast(pa.list_(pa.struct(fields)))
        table = table.set_column(table.column_names.index(name), name, column)
    return table
