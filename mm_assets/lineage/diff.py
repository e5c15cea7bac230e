"""Two releases, or two models, side by side: what they pin, what made them, which samples they hold, how good they are.

Only small tables and the columns that decide are read; samples are joined out of core.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from mm_assets.checks.exclusions import EXCLUSIONS, parse_exclusions
from mm_assets.checks.rules import read_rules_record
from mm_assets.evaluation.report import Score, read_report
from mm_assets.identity.canonical import Json
from mm_assets.lineage.records import current_manifest, find_model, flat
from mm_assets.promotion.comparison import paired_difference
from mm_assets.releases.spec import ReleaseSpec, read_spec
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store

CONFIDENCE = 0.95
#: Ids that are named per change; all are counted.
MAX_IDS = 20
#: What names a release, and what its other sections repeat.
NAMES = ("schema_", "schema", "release")
#: Slices by their column in the table of predictions.
SLICES = {"overall": "''", "modalities": "combination", "language": "language", "label": "label"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two: its spec and what is made of it so far."""

    name: str
    spec: ReleaseSpec
    manifests: dict[str, Manifest]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Something that is not the same on both sides; None where a side lacks it."""

    name: str
    first: Json
    second: Json


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """Samples that are not in both alike: ``train``, ``val`` or ``test``, the reasons they are left out for, or absent.

    ``ids`` are the first of ``count``.
    """

    first: str
    second: str
    count: int
    ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """Balanced accuracy of one value of one slice.

    ``first`` and ``second`` are over each side's own ``num_first`` and ``num_second`` labelled test samples;
    ``difference`` (second minus first) and its 95 % interval over the ``num_shared`` that both were tested on.
    """

    slice: str
    value: str
    first: float | None
    num_first: int
    second: float | None
    num_second: int
    num_shared: int
    difference: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffReport:
    """Everything that is not the same."""

    first: str
    second: str
    settings: tuple[Change, ...]
    made_by: tuple[Change, ...]
    samples: tuple[Moved, ...]
    num_same: int
    metrics: tuple[Metric, ...]


def diff_releases(store: Store, first: str, second: str) -> DiffReport:
    """Compares two releases or models.

    Args:
        store: Holds both.
        first: A release, the digest of a model's manifest, or ``production``.
        second: Another.

    Raises:
        UsageError: there is no such release or model.
    """
    left, right = (_side(store, name) for name in (first, second))
    settings = [_settings(side) | _on_record(store, side.spec.release) for side in (left, right)]
    with scratch_folder("diff") as folder:
        database = _open(folder)
        samples, num_same = _samples(store, database, left, right, folder)
        metrics = tuple(_metrics(store, database, left, right, folder))
        database.close()
    return DiffReport(
        first=first,
        second=second,
        settings=tuple(_changes(*settings)),
        made_by=tuple(_changes(_makers(left), _makers(right))),
        samples=samples,
        num_same=num_same,
        metrics=metrics,
    )


def _side(store: Store, name: str) -> Side:
    """A release as it is now, or a model with the release it was trained on."""
    manifests: dict[str, Manifest] = {}
    if name == "production" or name.startswith("sha256:"):
        digest, model = find_model(store, name)
        release = model.partition.release
        manifests["model"] = model
        manifests["dataset_release"] = read_manifest(store, model.input("dataset_release").manifest)
        _add_evaluation(store, manifests, digest, release)
        return Side(name=name, spec=read_spec(store, release), manifests=manifests)
    spec = read_spec(store, name)
    for asset in ("dataset_release", "model"):
        found = current_manifest(store, asset, Partition(release=name))
        if found is not None:
            manifests[asset] = found[1]
            if asset == "model":
                _add_evaluation(store, manifests, found[0], name)
    return Side(name=name, spec=spec, manifests=manifests)


def _add_evaluation(store: Store, manifests: dict[str, Manifest], digest: str, release: str) -> None:
    """Adds the release's evaluation if it is that of the model, or of another manifest with the same outputs."""
    tested = current_manifest(store, "evaluation", Partition(release=release))
    content = manifests["model"].content
    for entry in tested[1].inputs_of("model") if tested is not None else ():
        if tested is not None and (entry.manifest == digest or read_manifest(store, entry.manifest).content == content):
            manifests["evaluation"] = tested[1]


def _settings(side: Side) -> dict[str, Json]:
    """What the spec pins, flat; lists are one value."""
    pinned: dict[str, Any] = side.spec.model_dump(mode="json")
    return flat({name: value for name, value in pinned.items() if name not in NAMES and value is not None})


def _on_record(store: Store, release: str) -> dict[str, Json]:
    """What was put in force since the release was opened: rules, exclusions with their reasons, and why."""
    record = read_rules_record(store, release)
    if record is None:
        return {}
    found: dict[str, Json] = {f"rules.{name}": digest for name, digest in record.rules.items()}
    if EXCLUSIONS in record.rules:
        excluded = parse_exclusions(store.get_bytes(record.rules[EXCLUSIONS]), EXCLUSIONS)
        found["excluded_on_record"] = dict(excluded.samples)
    return found | {"rules_replaced_because": record.reason}


def _makers(side: Side) -> dict[str, Json]:
    """Per asset its code and environment."""
    found: dict[str, Json] = {}
    for asset, manifest in side.manifests.items():
        found |= {f"{asset}.code": manifest.code, **flat(manifest.environment, f"{asset}.environment.")}
    return found


def _changes(before: dict[str, Json], after: dict[str, Json]) -> Iterator[Change]:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Change(name=name, first=before.get(name), second=after.get(name))


def _open(folder: Path) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(str(folder / "diff.duckdb"))
    database.execute("SET threads = 1")
    database.execute(f"SET temp_directory = '{folder / 'spill'}'")
    return database


def _fetch(store: Store, side: Side, asset: str, table: str, folder: Path) -> str | None:
    if asset not in side.manifests:
        return None
    return str(store.fetch(side.manifests[asset].output(table).digest, folder))


def _samples(
    store: Store, database: duckdb.DuckDBPyConnection, left: Side, right: Side, folder: Path
) -> tuple[tuple[Moved, ...], int]:
    """Samples that moved, the most frequent change first, and how many did not."""
    paths = [_fetch(store, side, "dataset_release", "samples.parquet", folder) for side in (left, right)]
    if None in paths:
        return (), 0
    for name, path in zip(("a", "b"), paths, strict=True):
        # An id that came twice counts once: as the selected row.
        database.execute(
            f"""CREATE TEMP TABLE {name} AS SELECT id, coalesce(
                  max(split) FILTER (selected), 'left out: ' || max(reasons)) AS state
                FROM read_parquet($path) GROUP BY id""",
            {"path": path},
        )
    rows = database.execute(
        """SELECT coalesce(a.state, 'absent') AS first, coalesce(b.state, 'absent') AS second, count(*) AS number,
             min(coalesce(a.id, b.id), $most) AS ids
           FROM a FULL JOIN b USING (id) GROUP BY ALL ORDER BY number DESC, first, second""",
        {"most": MAX_IDS},
    ).fetchall()
    moved = tuple(
        Moved(first=first, second=second, count=number, ids=tuple(ids))
        for first, second, number, ids in rows
        if first != second
    )
    return moved, sum(number for first, second, number, _ in rows if first == second)


def _metrics(
    store: Store, database: duckdb.DuckDBPyConnection, left: Side, right: Side, folder: Path
) -> Iterator[Metric]:
    paths = [_fetch(store, side, "evaluation", "predictions.parquet", folder) for side in (left, right)]
    if None in paths:
        return
    database.execute(
        """CREATE TEMP TABLE shared AS SELECT a.id, label, coalesce(a.language, '(none)') AS language, a.combination,
             a.predicted IS NOT DISTINCT FROM label AS first, b.predicted IS NOT DISTINCT FROM label AS second
           FROM read_parquet($first) a JOIN read_parquet($second) b USING (id, label, corruption)
           WHERE corruption = '' AND label IS NOT NULL""",
        {"first": paths[0], "second": paths[1]},
    )
    own = [_scores(store, side) for side in (left, right)]
    for place in sorted({*own[0], *own[1]}, key=lambda place: (list(SLICES).index(place[0]), place[1])):
        before, after = (scores.get(place) for scores in own)
        number, difference, interval = _paired(database, *place)
        yield Metric(
            slice=place[0],
            value=place[1],
            first=before.balanced_accuracy if before else None,
            num_first=before.n if before else 0,
            second=after.balanced_accuracy if after else None,
            num_second=after.n if after else 0,
            num_shared=number,
            difference=difference,
            interval=interval,
        )


def _scores(store: Store, side: Side) -> dict[tuple[str, str], Score]:
    report = read_report(store, side.manifests["evaluation"])
    found: dict[tuple[str, str], Score] = {("overall", ""): report.overall}
    return found | {(entry.slice, entry.value): entry for entry in report.slices if entry.slice in SLICES}


def _paired(
    database: duckdb.DuckDBPyConnection, name: str, value: str
) -> tuple[int, float | None, tuple[float, float] | None]:
    """Over the samples of a slice that both were tested on: how many, the difference, and its interval."""
    rows = database.execute(
        f"SELECT label, first::INT, second::INT FROM shared WHERE {SLICES[name]} = $value ORDER BY id", {"value": value}
    ).fetchall()
    if not rows:
        return 0, None, None
    labels, first, second = zip(*rows, strict=True)
    _, class_B = np.unique(np.array(labels, dtype=object).astype(str), return_inverse=True)
    difference, interval = paired_difference(np.array(second) - np.array(first), class_B, confidence=CONFIDENCE)
    return len(rows), difference, interval
