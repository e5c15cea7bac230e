"""``mm deadletter``: what a release rejected and why, where its bytes are, and replaying it after a fix."""

import argparse
import itertools

from rich.console import Console

from mm_assets.identity.canonical import Json
from mm_assets.lineage.letters import GROUPS, LetterFilter, find_letter, group_letters, read_letters
from mm_assets.lineage.records import Row
from mm_assets.materialize import Workspace
from mm_assets.operations.replay_letters import replay_letters
from mm_assets.operations.screen import Outcome, print_table
from mm_assets.settings import read_settings
from mm_assets.store.objects import open_store

MAX_ROWS = 20
#: Letters that ``--json`` lists; all are counted.
MAX_LETTERS = 10_000


def list_all(args: argparse.Namespace, console: Console) -> Outcome:
    """The letters of a release, counted by reason, modality, source and drop."""
    store = open_store(read_settings())
    kept: list[Row] = []
    letters = read_letters(store, args.release, _filter(args))

    def keep(letter: Row) -> Row:
        if len(kept) < MAX_LETTERS:
            kept.append(letter)
        return letter

    groups = group_letters(map(keep, letters))
    rows = [[group[name] or "-" for name in (*GROUPS, "num_letters")] for group in groups]
    print_table(console, f"Dead letters of release {args.release}", (*GROUPS, "letters"), rows, left=len(GROUPS))
    shown = [(letter["id"] or letter["object"], letter["reason"], letter["detail"]) for letter in kept[:MAX_ROWS]]
    total = sum(int(str(group["num_letters"])) for group in groups)
    print_table(console, f"The first {len(shown)} of {total}", ("sample", "reason", "detail"), shown, left=3)
    result: dict[str, Json] = {
        "release": args.release, "num_letters": total, "groups": list(groups), "letters": list(kept),
    }  # fmt: skip
    return Outcome(result=result)


def show(args: argparse.Namespace, console: Console) -> Outcome:
    """Everything on record about a letter, and where its bytes are."""
    letters = find_letter(open_store(read_settings()), args.release, args.letter)
    for letter in letters:
        place = dict(letter["place"])
        fields = [(name, value) for name, value in letter.items() if name != "place" and value is not None]
        rows = itertools.chain(fields, ((f"place.{name}", value) for name, value in place.items()))
        print_table(console, f"Dead letter {letter['id'] or letter['object']}", ("field", "value"), list(rows), left=2)
    return Outcome(result={"release": args.release, "letters": list(letters)})


def replay(args: argparse.Namespace, console: Console) -> Outcome:
    """Computes the shards with letters again and says which samples are good now."""
    report = replay_letters(
        Workspace(read_settings()),
        args.release,
        _filter(args),
        into=args.into,
        configuration=args.config,
        on_shard=lambda shard: console.print(f"replaying shard {shard}", markup=False),
    )
    named = [(name, "recovered") for name in report.recovered] + [(name, "still dead") for name in report.still_dead]
    print_table(console, f"Replayed for release {report.release}", ("sample", "now"), named[:MAX_ROWS], left=2)
    if named and not report.computed:
        console.print("No shard was computed again: neither its code nor its ceilings are others than before.")
    elif report.recovered:
        console.print(f"Go on with `mm run --release {report.release}`.", markup=False)
    result: dict[str, Json] = {
        "release": report.release,
        "computed": list(report.computed),
        "recovered": len(report.recovered),
        "still_dead": len(report.still_dead),
        "samples": {"recovered": list(report.recovered), "still_dead": list(report.still_dead)},
    }
    return Outcome(result=result)


def _filter(args: argparse.Namespace) -> LetterFilter:
    return LetterFilter(reason=args.reason, modality=args.modality, source=args.source)
