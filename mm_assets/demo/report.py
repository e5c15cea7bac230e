"""What a release came to, for reading: a table per stage, slices, retrieval and the decision."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich import filesize
from rich.console import Console

from mm_assets.evaluation.report import Report
from mm_assets.identity.canonical import digest_json
from mm_assets.operations.display import Timeline
from mm_assets.operations.screen import print_table, short_digest
from mm_assets.pipeline import ASSETS, Asset
from mm_assets.promotion.decision import Decision
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref

ABSENT = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetSummary:
    """All partitions of one asset; ``digest`` is its manifest's, or over its shards' manifests in order."""

    asset: Asset
    manifests: tuple[Manifest, ...]
    num_expected: int
    digest: str | None

    def total(self, stat: str) -> int | None:
        """A statistic summed over the partitions, or None if the asset has none of that name."""
        values = [manifest.stats[stat] for manifest in self.manifests if stat in manifest.stats]
        return sum(values) if values else None

    @property
    def size_bytes(self) -> int:
        """Bytes of all outputs."""
        return sum(output.size_bytes for manifest in self.manifests for output in manifest.outputs)


def summarize(store: Store, spec: ReleaseSpec) -> dict[str, AssetSummary]:
    """What every asset of a release currently is, in pipeline order."""
    return {asset.name: _summarize_asset(store, spec, asset) for asset in ASSETS.values()}


def print_stages(console: Console, summaries: Mapping[str, AssetSummary], timeline: Timeline) -> None:
    """One row per asset: what went in and out of it and what this run did about it."""
    rows = [
        (
            name,
            _count(summary.total("rows_in")),
            _count(summary.total("rows_out")),
            _count(summary.total("dead_letters")),
            filesize.decimal(summary.size_bytes),
            f"{timeline.seconds.get(name, 0.0):.1f}",
            ", ".join(f"{count} {state}" for state, count in sorted(timeline.states.get(name, {}).items())) or ABSENT,
            short_digest(summary.digest) if summary.digest else ABSENT,
        )
        for name, summary in summaries.items()
    ]
    columns = ("asset", "rows in", "rows out", "dead", "size", "seconds", "partitions", "digest")
    print_table(console, "Stages", columns, rows)


def print_evaluation(console: Console, report: Report) -> None:
    """Accuracy per slice and retrieval, with the counts they rest on."""
    scores = [("all", report.split, report.overall)]
    scores += [(score.slice, score.value, score) for score in report.slices]
    print_table(
        console,
        f"Accuracy on the {report.split} split, {len(report.classes)} classes",
        ("slice", "value", "labelled", "accuracy", "balanced"),
        [
            (kind, value, score.n, _number(score.accuracy), _number(score.balanced_accuracy))
            for kind, value, score in scores
        ],
        left=2,
    )
    rows = [
        (
            name.replace("_", " "),
            score.n,
            *map(_number, (score.recall_at_1, score.recall_at_5, score.recall_at_10, score.chance_at_10)),
        )
        for name, score in sorted(report.retrieval.items())
    ]
    columns = ("direction", "pool", "recall@1", "recall@5", "recall@10", "chance@10")
    print_table(console, "Retrieval", columns, rows)


def print_decision(console: Console, decision: Decision) -> None:
    """The gates and what they decided."""
    rows = [
        (gate.name, "FAILED" if gate.outcome == "failed" else gate.outcome.replace("_", " "), gate.reason)
        for gate in decision.gates
    ]
    print_table(console, "Promotion gates", ("gate", "outcome", "why"), rows, left=3)
    style = "bold green" if decision.decision == "promoted" else "bold yellow"
    console.print(f"Decision: {decision.decision}, state {decision.state}.", style=style)


def _summarize_asset(store: Store, spec: ReleaseSpec, asset: Asset) -> AssetSummary:
    shards = spec.shards() if asset.is_sharded else [None]
    refs = [read_ref(store, asset.name, Partition(release=spec.release, shard=shard)).ref for shard in shards]
    digests = [ref.manifest for ref in refs if ref is not None]
    whole = len(digests) == len(shards)
    return AssetSummary(
        asset=asset,
        manifests=tuple(read_manifest(store, digest) for digest in digests),
        num_expected=len(shards),
        digest=(digest_json(digests) if asset.is_sharded else digests[0]) if whole else None,
    )


def _count(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.3f}" if value < 10 else f"{value:.0f}"
