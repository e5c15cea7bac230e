"""``mm rules``: which rules a release is judged by, and replacing them on record."""

import argparse

from rich.console import Console

from mm_assets.checks.rules import read_rules_record, replace_rules
from mm_assets.configurations import PARSERS
from mm_assets.errors import UsageError
from mm_assets.identity.canonical import Json
from mm_assets.materialize import Workspace
from mm_assets.operations.screen import Outcome, print_table, short_digest
from mm_assets.pipeline import OPTIONAL_RULES
from mm_assets.settings import current_user, read_settings


def show(args: argparse.Namespace, console: Console) -> Outcome:
    """The rules in force, and why they were replaced."""
    workspace = Workspace(read_settings())
    return _shown(workspace, args.release, console)


def replace(args: argparse.Namespace, console: Console) -> Outcome:
    """Replaces rules files of a release. What was checked under the old ones has to be checked again."""
    workspace = Workspace(read_settings())
    files: dict[str, bytes] = {}
    for path in args.file:
        if path.name not in PARSERS:
            raise UsageError(f"{path}: is not a rules file: expected one called {', '.join(PARSERS)}. Rename it.")
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file. Name the rules file to put in force.")
        files[path.name] = path.read_bytes()
        PARSERS[path.name](files[path.name], str(path))
    rules = workspace.rules(args.release)
    replace_rules(
        workspace.store, args.release, rules, files, reason=args.reason, by=current_user(), optional=OPTIONAL_RULES
    )
    console.print(
        f"Replaced {', '.join(sorted(files))} of release {args.release}. What they judge is checked again by "
        f"`mm run --release {args.release}`.",
        markup=False,
    )
    return _shown(Workspace(workspace.settings), args.release, console)


def _origin(opened: str | None, digest: str, is_replaced: bool) -> str:
    if opened == digest:
        return "as opened"
    return "replaced" if is_replaced else "of this version"


def _shown(workspace: Workspace, release: str, console: Console) -> Outcome:
    rules = workspace.rules(release).digests
    opened = workspace.spec(release).rules
    record = read_rules_record(workspace.store, release)
    rows = [
        (name, short_digest(digest), _origin(opened.get(name), digest, record is not None))
        for name, digest in sorted(rules.items())
    ]
    print_table(console, f"Rules of release {release}", ("file", "digest", "origin"), rows, left=3)
    result: dict[str, Json] = {"release": release, "rules": dict(rules)}
    if record is not None:
        console.print(f"Last replaced by {record.by} at {record.at}: {record.reason}", markup=False)
        result["replaced"] = {"by": record.by, "at": record.at, "reason": record.reason, "changed": record.changed}
    return Outcome(result=result)
