"""``mm release``: opening releases and seeing how far they are."""

import argparse

from rich.console import Console

from mm_assets.configurations import open_default_release
from mm_assets.errors import UsageError
from mm_assets.identity.canonical import Json, canonical_json, digest_bytes
from mm_assets.operations.screen import Outcome, print_table, short_digest
from mm_assets.operations.status import AssetStatus, release_status, status_json
from mm_assets.releases.spec import ReleaseSpec, list_releases, read_spec
from mm_assets.settings import read_settings
from mm_assets.store.objects import Store, open_store


def open_release(args: argparse.Namespace, console: Console) -> Outcome:
    """Opens a release; opening it again alike is no error."""
    settings = read_settings()
    drops = [_drop_of(text) for text in args.drop]
    store = open_store(settings)
    spec = open_default_release(
        store,
        settings,
        release=args.release,
        drops=drops,
        parent=args.parent,
        policy=args.policy,
        recipe=args.recipe,
    )
    console.print(
        f"Release {spec.release} is open. Materialize it with `mm run --release {spec.release}`.", markup=False
    )
    return Outcome(result=_result(store, spec))


def list_all(args: argparse.Namespace, console: Console) -> Outcome:
    """One line per release. ``release``, ``spec`` and ``stages`` hold the columns of ``releases``."""
    del args
    store = open_store(read_settings())
    specs = [read_spec(store, name) for name in list_releases(store)]
    results = [_result(store, spec) for spec in specs]
    rows = [
        (spec.release, ", ".join(f"{pin.source}/{pin.drop}" for pin in spec.drops),
         spec.parent.release if spec.parent else "-", spec.num_shards, _furthest(release_status(store, spec)))
        for spec in specs
    ]  # fmt: skip
    if rows:
        print_table(console, "Releases", ("release", "drops", "parent", "shards", "state"), rows, left=2)
    else:
        console.print("No release is open. Open one with `mm release open`, or run `mm demo`.")
    columns: dict[str, Json] = {
        "release": [spec.release for spec in specs],
        "spec": {spec.release: result["spec"] for spec, result in zip(specs, results, strict=True)},
        "stages": {spec.release: result["stages"] for spec, result in zip(specs, results, strict=True)},
    }
    return Outcome(result=columns | {"releases": results})


def show(args: argparse.Namespace, console: Console) -> Outcome:
    """What a release pins and how far it is."""
    store = open_store(read_settings())
    spec = read_spec(store, args.release)
    pins = [("drop", f"{pin.source}/{pin.drop}", short_digest(pin.digest)) for pin in spec.drops]
    if spec.parent is not None:
        pins.append(("parent", spec.parent.release, short_digest(spec.parent.digest)))
    pins.append(("encoder", spec.encoder.get("kind", ""), short_digest(spec.encoder.get("digest", ""))))
    pins.append(("policy", spec.policy.get("name", ""), ""))
    pins.append(("recipe", str(spec.recipe.get("name", "")), short_digest(_digest_of(spec))))
    print_table(console, f"Release {spec.release}", ("pins", "name", "digest"), pins, left=2)
    status = release_status(store, spec)
    rows = [(name, entry.state, f"{entry.done}/{entry.total}") for name, entry in status.items()]
    print_table(console, "Stages", ("asset", "state", "partitions"), rows, left=2)
    return Outcome(result=_result(store, spec) | {"pins": spec.model_dump(by_alias=True)})


def _result(store: Store, spec: ReleaseSpec) -> dict[str, Json]:
    return {
        "release": spec.release,
        "spec": _digest_of(spec),
        "stages": status_json(release_status(store, spec)),
    }


def _digest_of(spec: ReleaseSpec) -> str:
    return digest_bytes(canonical_json(spec.model_dump(by_alias=True)))


def _drop_of(text: str) -> tuple[str, str]:
    source, slash, drop = text.partition("/")
    if not (source and slash and drop) or "/" in drop:
        raise UsageError(f"--drop {text}: is malformed: expected SOURCE/DROP, as `mm drop push` printed it.")
    return source, drop


def _furthest(status: dict[str, AssetStatus]) -> str:
    """The first asset that is not through, which is where the release stands."""
    for name, entry in status.items():
        if entry.state != "passed":
            return f"{name} {entry.state} {entry.done}/{entry.total}"
    return "complete"
