"""Looking into a store: ``mm verify``, ``mm trace``, ``mm openlineage`` and ``mm explain``."""

import argparse
import json
from collections.abc import Mapping, Sequence

from rich.console import Console

from mm_assets.identity.canonical import Json
from mm_assets.lineage.explain import explain_sample
from mm_assets.lineage.openlineage import openlineage_events
from mm_assets.lineage.trace import trace_model, trace_sample
from mm_assets.lineage.verify import verify_store
from mm_assets.operations.screen import Outcome, print_table, progress_bar
from mm_assets.settings import read_settings
from mm_assets.store.objects import open_store

MAX_ROWS = 20


def verify(args: argparse.Namespace, console: Console) -> Outcome:
    """Re-hashes what refs reach; not ok if anything is corrupt or missing."""
    del args
    store = open_store(read_settings())
    done = 0
    with progress_bar(console, "hashing objects") as show:

        def count() -> None:
            nonlocal done
            done += 1
            show(done, None)

        report = verify_store(store, on_object=count)
    wrong = [("corrupt", key) for key in report.corrupt] + [("missing", key) for key in report.missing]
    if wrong:
        rows = [(problem, key, report.reasons[key]) for problem, key in wrong[:MAX_ROWS]]
        more = f" (the first {MAX_ROWS} of {len(wrong)}; --json has all)" if len(wrong) > MAX_ROWS else ""
        print_table(console, f"Damaged{more}", ("problem", "key", "why"), rows, left=3)
        console.print("Run `mm run --release R --force` for their releases: it stores damaged objects again.")
    console.print(f"{report.objects} objects checked, {len(wrong)} damaged.")
    result: dict[str, Json] = {
        "objects": report.objects,
        "corrupt": list(report.corrupt),
        "missing": list(report.missing),
        "reasons": dict(report.reasons),
    }
    return Outcome(result=result, ok=report.is_sound)


def trace(args: argparse.Namespace, console: Console) -> Outcome:
    """Follows a sample forward to models, or a model back to its drops."""
    store = open_store(read_settings())
    if args.sample is not None:
        result = trace_sample(store, args.sample)
        title = f"Sample {args.sample}"
    else:
        result = trace_model(store, args.model)
        title = f"Model {args.model}"
    _print_record(console, title, result)
    return Outcome(result=result)


def openlineage(args: argparse.Namespace, console: Console) -> Outcome:
    """Writes the events of a release, one JSON object a line."""
    lines = [
        json.dumps(event, ensure_ascii=False, sort_keys=True)
        for event in openlineage_events(open_store(read_settings()), args.release)
    ]
    args.output.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    console.print(f"{len(lines)} OpenLineage events written to {args.output}.", markup=False)
    return Outcome(result={"release": args.release, "num_events": len(lines), "output": str(args.output)})


def explain(args: argparse.Namespace, console: Console) -> Outcome:
    """Says whether a sample is in a release, with the reasons and the signals they rest on."""
    result = explain_sample(open_store(read_settings()), args.release, args.sample)
    _print_record(console, f"Sample {args.sample} in release {args.release}", result)
    return Outcome(result=result)


def _print_record(console: Console, title: str, record: Mapping[str, Json]) -> None:
    """A record as tables: scalars in one, then one table per list of objects."""
    plain: list[tuple[str, str]] = []
    tables: list[tuple[str, Sequence[Mapping[str, Json]]]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            plain.extend((f"{name}.{key}", _text(item)) for key, item in value.items())
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            tables.append((name, [item for item in value if isinstance(item, Mapping)]))
        else:
            plain.append((name, _text(value)))
    print_table(console, title, ("field", "value"), plain, left=2)
    for name, rows in tables:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [[_text(row.get(column)) for column in columns] for row in rows[:MAX_ROWS]]
        shown = f", the first {MAX_ROWS}; --json has all" if len(rows) > MAX_ROWS else ""
        print_table(console, f"{name} ({len(rows)}{shown})", columns, cells, left=len(columns))


def _text(value: Json) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(map(str, value)) or "none"
    return json.dumps(value, ensure_ascii=False)
