"""``mm policy``: the curation policies of a store, and what one would do to a frozen release."""

import argparse
import time
from pathlib import Path

from rich.console import Console

from mm_assets.checks.yaml_files import read_file
from mm_assets.errors import UsageError
from mm_assets.identity.canonical import Json
from mm_assets.materialize import Workspace
from mm_assets.operations.screen import Outcome, print_table, short_digest
from mm_assets.release.curation import check_policy
from mm_assets.release.policies import Policy, parse_policy
from mm_assets.release.trial import largest_slices, try_policy
from mm_assets.releases.policies import add_policy, list_policies, packaged_policies, pin_policy
from mm_assets.scratch import scratch_folder
from mm_assets.settings import current_user, read_settings
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import Store, open_store
from mm_assets.store.refs import require_ref

MAX_VALUES = 8


def list_all(args: argparse.Namespace, console: Console) -> Outcome:
    """Every policy, packaged ones first, with its versions."""
    del args
    store = open_store(read_settings())
    policies: list[Json] = [{"name": name, "version": None, "by": None, "at": None} for name in packaged_policies()]
    policies += [
        {"name": entry.name, "version": entry.version, "digest": entry.digest, "by": entry.by, "at": entry.at}
        for entry in list_policies(store)
    ]
    rows = [[entry.get(name) or "packaged" for name in ("name", "version", "by", "at")] for entry in _objects(policies)]
    print_table(console, "Policies", ("name", "version", "added by", "at"), rows, left=4)
    return Outcome(result={"policies": policies})


def show(args: argparse.Namespace, console: Console) -> Outcome:
    """A policy's expressions, by reason."""
    store = open_store(read_settings())
    pinned = pin_policy(store, args.policy)
    policy = parse_policy(store.get_bytes(pinned["digest"]), pinned["file"])
    _print(console, policy)
    return Outcome(result={**pinned, "policy": policy.to_params()})


def add(args: argparse.Namespace, console: Console) -> Outcome:
    """Adds a file as the next version of the policy it names."""
    policy, data = _read(args.file)
    entry = add_policy(open_store(read_settings()), policy.name, args.file.name, data, by=current_user())
    console.print(
        f"Policy {entry.name} is version {entry.version} ({short_digest(entry.digest)}). "
        f"Use it with `mm release open --policy {entry.name}`.",
        markup=False,
    )
    return Outcome(result={"name": entry.name, "version": entry.version, "digest": entry.digest})


def try_on(args: argparse.Namespace, console: Console) -> Outcome:
    """What a file, or a policy of the store, would do to a frozen release. Changes nothing."""
    started = time.monotonic()
    workspace = Workspace(read_settings())
    store = workspace.store
    policy = _wanted(store, args.policy)
    workspace.spec(args.release)
    ref = require_ref(store, "dataset_release", Partition(release=args.release))
    with scratch_folder("policy") as folder:
        found = try_policy(store, read_manifest(store, ref.manifest), policy, folder)
    result: dict[str, Json] = {"release": args.release, **found, "wall_s": round(time.monotonic() - started, 2)}
    _print_trial(console, result)
    return Outcome(result=result)


def _wanted(store: Store, wanted: str) -> Policy:
    """The policy in a file, or a named one."""
    path = Path(wanted)
    if path.suffix in (".yaml", ".yml", ".sql") or path.is_file():
        return _read(path)[0]
    pinned = pin_policy(store, wanted)
    return parse_policy(store.get_bytes(pinned["digest"]), pinned["file"])


def _read(path: Path) -> tuple[Policy, bytes]:
    data = read_file(path, UsageError)
    policy = parse_policy(data, str(path))
    check_policy(policy)
    return policy, data


def _print(console: Console, policy: Policy) -> None:
    rows = [(reason, " ".join(sql.split())) for reason, sql in policy.expressions.items()]
    print_table(console, f"Policy {policy.name}", ("reason", "left out where"), rows, left=2)


def _print_trial(console: Console, result: dict[str, Json]) -> None:
    reasons = _objects([result["reasons"]])[0]
    print_table(
        console, f"Policy {result['policy']} on release {result['release']}", ("left out because", "samples"),
        list(reasons.items()),
    )  # fmt: skip
    slices = largest_slices(_objects([result["slices"]])[0], MAX_VALUES)
    columns = ("slice", "value", "in", "out", "let in", "left out")
    print_table(console, f"Slices, against policy {result['in_force']}", columns, slices, left=2)
    selected = _objects([result["selected"]])[0]
    console.print(
        f"{result['in']} of {result['rows']} samples stay, {result['out']} are left out. Selected: "
        f"{selected['before']} now, about {selected['after']} with this policy "
        "(duplicates and splits are decided when a release is frozen).",
        markup=False,
    )


def _objects(values: list[Json]) -> list[dict[str, Json]]:
    return [value for value in values if isinstance(value, dict)]
