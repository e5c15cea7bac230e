"""``mm release``: opening releases and seeing how far they are."""

import argparse

from rich.console import Console

from mm_assets.checks.exclusions import EXCLUSIONS, Exclusions, read_exclusions
from mm_assets.checks.rules import replace_rules
from mm_assets.configurations import PARSERS, ReleaseRequest, frozen_pin, open_named_release
from mm_assets.errors import UsageError
from mm_assets.identity.canonical import Json, digest_json
from mm_assets.materialize import Workspace
from mm_assets.operations.screen import Outcome, print_table, short_digest
from mm_assets.operations.status import AssetStatus, release_status, status_json
from mm_assets.pipeline import OPTIONAL_RULES
from mm_assets.release.contamination import KEYS_FILE
from mm_assets.releases.evaluation_sets import list_evaluation_sets, name_evaluation_set
from mm_assets.releases.opening import require_terms
from mm_assets.releases.spec import ReleaseSpec, list_releases
from mm_assets.settings import current_user, read_settings
from mm_assets.store.manifest import read_manifest


def open_release(args: argparse.Namespace, console: Console) -> Outcome:
    """Opens a release; opening it again with the same arguments changes nothing."""
    workspace = Workspace(read_settings())
    if args.data_of and (args.drop or args.parent):
        raise UsageError(
            "--data-of: takes another release's data: expected neither --drop nor --parent. Leave them out."
        )
    if not args.data_of and not args.drop:
        raise UsageError("--drop: is missing: expected --drop SOURCE/DROP, or --data-of RELEASE for an experiment.")
    spec = open_named_release(
        workspace,
        ReleaseRequest(
            release=args.release,
            drops=tuple(_drop_of(text) for text in args.drop or ()),
            parent=args.parent,
            data_of=args.data_of,
            policy=args.policy,
            configuration=args.config,
            exclusions=tuple(args.exclude or ()),
            encoder=args.encoder,
            num_shards=args.shards,
            use=args.use,
        ),
    )
    undeclared = require_terms(workspace.store, spec)
    for clause in undeclared:
        console.print(f"Note: {clause}.", markup=False)
    console.print(
        f"Release {spec.release} is open with {spec.num_shards or 'no'} shards of its own. "
        f"Materialize it with `mm run --release {spec.release}`.",
        markup=False,
    )
    return Outcome(result=_result(workspace, spec) | {"undeclared": list(undeclared)})


def list_all(args: argparse.Namespace, console: Console) -> Outcome:
    """One line per release. ``release``, ``spec`` and ``stages`` hold the columns of ``releases``."""
    del args
    workspace = Workspace(read_settings())
    specs = [workspace.spec(name) for name in list_releases(workspace.store)]
    status = {spec.release: release_status(workspace, spec.release) for spec in specs}
    rows = [
        (spec.release, _data_of(spec), spec.parent.release if spec.parent else "-", spec.num_shards,
         _furthest(status[spec.release]))
        for spec in specs
    ]  # fmt: skip
    if rows:
        print_table(console, "Releases", ("release", "data", "parent", "shards", "state"), rows, left=2)
    else:
        console.print("No release is open. Open one with `mm release open`, or run `mm demo`.")
    columns: dict[str, Json] = {
        "release": [spec.release for spec in specs],
        "spec": {spec.release: spec.digest for spec in specs},
        "stages": {name: status_json(entry) for name, entry in status.items()},
    }
    results = [
        {"release": spec.release, "spec": spec.digest, "stages": status_json(status[spec.release])} for spec in specs
    ]
    return Outcome(result=columns | {"releases": results})


def show(args: argparse.Namespace, console: Console) -> Outcome:
    """What a release pins, how far it is, and what failed."""
    workspace = Workspace(read_settings())
    spec = workspace.spec(args.release)
    pins = [("drop", f"{pin.source}/{pin.drop}", short_digest(pin.digest)) for pin in spec.drops]
    for kind, pin in (("parent", spec.parent), ("data of", spec.data_of)):
        if pin is not None:
            pins.append((kind, pin.release, short_digest(pin.digest)))
    pins += [("evaluation set", pin.release, short_digest(pin.digest)) for pin in spec.evaluation_sets]
    pins += [("use", spec.use, "")] if spec.use else []
    rules = workspace.rules(spec.release).digests
    pins += [("rules", name, short_digest(digest)) for name, digest in sorted(rules.items())]
    pins.append(("encoder", spec.encoder.get("kind", ""), short_digest(spec.encoder.get("digest", ""))))
    pins.append(("policy", spec.policy.get("name", ""), short_digest(digest_json(spec.policy))))
    name = str(spec.configuration.get("name", ""))
    pins.append(("configuration", name, short_digest(digest_json(spec.configuration))))
    pins += [("excluded", pattern, "as opened") for pattern in spec.exclusions]
    pins += [
        ("excluded", pattern, why) for pattern, why in read_exclusions(workspace.rules(spec.release)).samples.items()
    ]
    print_table(console, f"Release {spec.release}", ("pins", "name", "digest"), pins, left=2)
    status = release_status(workspace, spec.release)
    rows = [(name, entry.state, f"{entry.done}/{entry.total}") for name, entry in status.items()]
    print_table(console, "Stages", ("asset", "state", "partitions"), rows, left=2)
    failures: list[dict[str, Json]] = []
    for name, entry in status.items():
        for problem in entry.failures:
            failures.append({"asset": name, "partition": problem.partition.path, "error": problem.sentence})
            console.print(f"{name} {problem.partition.path}: {problem.sentence}", style="red", markup=False)
    pinned = spec.model_dump(by_alias=True)
    return Outcome(result=_result(workspace, spec) | {"pins": pinned, "failed": failures})


def exclude(args: argparse.Namespace, console: Console) -> Outcome:
    """Leaves samples out of an open release, on record; its checks and its freeze no longer count them."""
    workspace = Workspace(read_settings())
    rules = workspace.rules(args.release)
    before = read_exclusions(rules)
    added = {pattern: args.reason.strip() for pattern in args.sample if pattern not in before.samples}
    if added:
        files = {EXCLUSIONS: Exclusions(samples={**before.samples, **added}).encode()}
        # The file is not read back until something needs it: what cannot be used must not be put in force.
        PARSERS[EXCLUSIONS](files[EXCLUSIONS], "mm release exclude")
        replace_rules(
            workspace.store, args.release, rules, files, reason=args.reason, by=current_user(), optional=OPTIONAL_RULES
        )
    now = read_exclusions(Workspace(workspace.settings).rules(args.release))
    rows = [(pattern, reason) for pattern, reason in sorted(now.samples.items())]
    print_table(console, f"Excluded from release {args.release}", ("sample", "reason"), rows, left=2)
    console.print(f"What it changes is checked and frozen again by `mm run --release {args.release}`.", markup=False)
    return Outcome(result={"release": args.release, "excluded": dict(now.samples), "added": sorted(added)})


def name_evaluation(args: argparse.Namespace, console: Console) -> Outcome:
    """Names a frozen release an evaluation set: releases opened from now on never train on its test split."""
    workspace = Workspace(read_settings())
    pin = frozen_pin(workspace, args.release)
    if not any(output.name == KEYS_FILE for output in read_manifest(workspace.store, pin.digest).outputs):
        raise UsageError(
            f"release {args.release}: was frozen before its test split was kept as keys: expected {KEYS_FILE}. "
            f"Freeze it again with `mm run --release {args.release}`."
        )
    name_evaluation_set(workspace.store, pin, reason=args.reason, by=current_user())
    entries = list_evaluation_sets(workspace.store)
    rows = [(entry.release, short_digest(entry.digest), entry.reason) for entry in entries]
    print_table(console, "Evaluation sets", ("release", "frozen as", "reason"), rows, left=3)
    sets: dict[str, Json] = {entry.release: entry.digest for entry in entries}
    return Outcome(result={"release": args.release, "evaluation_sets": sets})


def _result(workspace: Workspace, spec: ReleaseSpec) -> dict[str, Json]:
    return {
        "release": spec.release,
        "spec": spec.digest,
        "stages": status_json(release_status(workspace, spec.release)),
    }


def _data_of(spec: ReleaseSpec) -> str:
    if spec.data_of is not None:
        return f"data of {spec.data_of.release}"
    return ", ".join(f"{pin.source}/{pin.drop}" for pin in spec.drops)


def _drop_of(text: str) -> tuple[str, str]:
    source, slash, drop = text.partition("/")
    if not (source and slash and drop) or "/" in drop:
        raise UsageError(f"--drop {text}: is malformed: expected SOURCE/DROP, as `mm drop push` printed it.")
    return source, drop


def _furthest(status: dict[str, AssetStatus]) -> str:
    """The first asset that is not complete."""
    for name, entry in status.items():
        if entry.state not in ("passed", "referenced"):
            return f"{name} {entry.state} {entry.done}/{entry.total}"
    return "complete"
