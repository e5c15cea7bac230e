"""``mm adopt``: new code that makes the same bytes need not compute a release again."""

import argparse

from rich.console import Console

from mm_assets.identity.canonical import Json
from mm_assets.launchers.process import StageLauncher
from mm_assets.materialize import Workspace
from mm_assets.operations.adopt import adopt as adopt_code
from mm_assets.operations.screen import Outcome, short_digest
from mm_assets.settings import current_user, read_settings

#: Ids that are printed; ``--json`` has all.
MAX_IDS = 20


def adopt(args: argparse.Namespace, console: Console) -> Outcome:
    """Computes a sample of partitions under the present code; not ok at the first difference."""
    settings = read_settings()
    workspace, launcher = Workspace(settings), StageLauncher(settings)
    report = adopt_code(
        workspace,
        args.asset,
        num_samples=args.samples,
        environment_of=lambda asset, release: launcher.environment(workspace, asset.name, release),
        by=current_user(),
        on_partition=lambda path: console.print(f"Computing {args.asset} {path} again.", markup=False),
    )
    codes = f"code {short_digest(report.old_code)} and {short_digest(report.new_code)}"
    result: dict[str, Json] = {
        "asset": report.asset,
        "old_code": report.old_code,
        "new_code": report.new_code,
        "partitions": list(report.partitions),
        "environments": {name: {"old": old, "new": new} for name, old, new in report.environments},
        "equal": report.difference is None,
    }
    for name, old, new in report.environments:
        codes += f", {name} {old or 'none'} and {new or 'none'}"
    if report.difference is None:
        console.print(
            f"{args.asset}: {codes} make the same bytes in {len(report.partitions)} partitions. What the old code made "
            "is used from now on.",
            markup=False,
        )
        return Outcome(result=result)
    console.print(f"{args.asset}: {codes} differ. {report.difference}.", style="red", markup=False)
    changed = report.difference.samples
    if changed:
        more = f" and {len(changed) - MAX_IDS} more" if len(changed) > MAX_IDS else ""
        console.print(
            f"{len(changed)} samples of {report.difference.partition} changed: {', '.join(changed[:MAX_IDS])}{more}.",
            markup=False,
        )
    return Outcome(result=result | {"difference": str(report.difference), "samples": list(changed)}, ok=False)
