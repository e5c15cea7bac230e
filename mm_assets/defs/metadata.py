"""What the UI shows about a partition: sizes first, then a picture, then counts, then everything by digest."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from mm_assets.checks.validations import ValidationRecord
from mm_assets.errors import LaunchError, MmError, ObjectCorruptError, ObjectMissingError, StoreError
from mm_assets.pipeline import ASSETS
from mm_assets.store.commit import Committed
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store

#: Name of every asset's check in Dagster.
CHECK = "check"
RUNBOOK = "docs/runbooks/failed-partition.md"
FAILED_CHECK_RUNBOOK = "docs/runbooks/failed-check.md"
#: Pages about one kind of trouble, the first match wins; everything else starts at ``RUNBOOK``.
RUNBOOKS: tuple[tuple[type[MmError], str], ...] = (
    (ObjectCorruptError, "docs/runbooks/damaged-object.md"),
    (ObjectMissingError, "docs/runbooks/damaged-object.md"),
    (StoreError, "docs/runbooks/store-unreachable.md"),
    (LaunchError, "docs/runbooks/launch-failure.md"),
)
#: Inputs that the UI lists; metadata are kept for ever.
MAX_INPUTS = 30
ROWS = ("rows_in", "rows_out", "dead_letters")

Metadata = dict[str, Any]


def materialization_metadata(store: Store, committed: Committed) -> Metadata:
    """The metadata of a materialization, in the order in which the UI lists it."""
    manifest, ref = committed.manifest, committed.ref
    stats = manifest.stats
    metadata: Metadata = {name: stats[name] for name in ROWS if name in stats}
    metadata["cached"] = committed.cached
    metadata["wall_s"] = ref.wall_s
    metadata["cpu_s"] = ref.cpu_s
    metadata["bytes"] = sum(output.size_bytes for output in manifest.outputs)
    preview = _preview(store, manifest)
    if preview:
        metadata["preview"] = dg.MetadataValue.md(preview)
    metadata |= {name: _value(stats[name]) for name in sorted(stats) if name not in ROWS}
    metadata["content"] = manifest.content
    metadata["manifest"] = committed.manifest_digest
    metadata["manifest_uri"] = dg.MetadataValue.url(store.object_uri(committed.manifest_digest))
    metadata["fingerprint"] = manifest.fingerprint
    metadata["inputs"] = dg.MetadataValue.md(_inputs(manifest))
    metadata["outputs"] = dg.MetadataValue.md(_outputs(manifest))
    if "rows_out" in stats:
        metadata["dagster/row_count"] = stats["rows_out"]
    return metadata


def _preview(store: Store, manifest: Manifest) -> str:
    """Markdown about a partition; empty for an asset that draws nothing."""
    module, _, function = ASSETS[manifest.asset].preview.partition(":")
    return getattr(importlib.import_module(module), function)(store, manifest) if module else ""


def check_metadata(record: ValidationRecord) -> Metadata:
    """The metadata of a check: every rule with its outcome and the samples or objects it fails for."""
    failed = [finding for finding in record.findings if not finding["passed"]]
    metadata: Metadata = {
        "rules": len(record.findings),
        "failed_rules": len(failed),
        "findings": dg.MetadataValue.md(_findings(record.findings)),
        "content": record.content,
        "rules_digest": record.rules,
    }
    return metadata | ({"runbook": FAILED_CHECK_RUNBOOK} if failed else {})


def failure_metadata(error: MmError) -> Metadata:
    """Where an on-call engineer reads on."""
    return {"runbook": next((page for kind, page in RUNBOOKS if isinstance(error, kind)), RUNBOOK)}


def failure_sentence(event: dg.DagsterEvent) -> str:
    """The one sentence of a failed step: what was raised on purpose, or the unexpected error."""
    failure = event.step_failure_data.user_failure_data
    if failure and failure.description:
        return failure.description
    causes = failure_causes(event)
    return causes[-1].message.strip() if causes else "no message"


def failure_causes(event: dg.DagsterEvent) -> list[SerializableErrorInfo]:
    """The error of a failed step and what caused it, the root cause last."""
    return causes_of(event.step_failure_data.error)


def causes_of(error: SerializableErrorInfo | None) -> list[SerializableErrorInfo]:
    """An error and what caused it, the root cause last."""
    causes: list[SerializableErrorInfo] = []
    while error is not None:
        causes.append(error)
        error = error.cause
    return causes


def findings_sentence(record: ValidationRecord) -> str:
    """The failed rules of a check in one line, or how many passed."""
    failed = [f"{finding['rule']}: {finding['detail']}" for finding in record.findings if not finding["passed"]]
    return "; ".join(failed) if failed else f"{len(record.findings)} rules passed."


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _value(value: object) -> object:
    # The UI draws a nested dict as JSON; an empty or mixed list has no type there.
    return dg.MetadataValue.json(value) if isinstance(value, Mapping | list) else value


def _inputs(manifest: Manifest) -> str:
    rows = (
        (
            f"{entry.asset} ({entry.role})" if entry.role else entry.asset,
            "/".join(entry.partition[name] for name in sorted(entry.partition)),
            item.name,
            f"`{item.digest}`",
        )
        for entry in manifest.inputs[:MAX_INPUTS]
        for item in entry.outputs
    )
    more = len(manifest.inputs) - MAX_INPUTS
    table = markdown_table(("asset", "partition", "object", "digest"), rows)
    return f"{table}\n\n{more} more inputs are in the manifest." if more > 0 else table


def _outputs(manifest: Manifest) -> str:
    rows = (
        (output.name, "" if output.num_rows is None else output.num_rows, output.size_bytes, f"`{output.digest}`")
        for output in manifest.outputs
    )
    return markdown_table(("name", "rows", "bytes", "digest"), rows)


def _findings(findings: Iterable[Mapping[str, Any]]) -> str:
    rows = (
        ("passed" if finding["passed"] else "**failed**", finding["rule"], finding["detail"], finding["num_failing"],
         ", ".join(f"`{name}`" for name in finding["failing_ids"]))
        for finding in sorted(findings, key=lambda finding: bool(finding["passed"]))
    )  # fmt: skip
    return markdown_table(("outcome", "rule", "detail", "failing", "failing ids"), rows)
