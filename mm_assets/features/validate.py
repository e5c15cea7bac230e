"""The checks of features and embeddings: pure readings of a shard's outputs, without torch.

The table expectations are the data owner's (``config/features.yaml``); the rest here are our own promises about the
files: sizes, finite numbers, unit length, matching rows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.checks.exclusions import read_exclusions
from mm_assets.checks.rules import Rules
from mm_assets.checks.suite import parse_suite
from mm_assets.checks.validations import MAX_FAILING_IDS, Finding
from mm_assets.drops.judging import judge_rows, suite_parts
from mm_assets.features.kinds import EMBEDDED, PRETRAINED
from mm_assets.modalities import origin
from mm_assets.modalities.parts import PARTS, Parts, explode, lengths_of, parse_parts
from mm_assets.modalities.table import HELD_BY, NAMES, aspect
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import map_arrow, read_parquet

SUITE = "features.yaml"
UNIT_TOLERANCE = 1e-4


def validate_features(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Samples and modalities of the snapshot, dead-letter budget, tensors, and the suite on ``signals.parquet``."""
    suite = parse_suite(rules.read(SUITE), SUITE)
    with scratch_folder("check") as folder:
        snapshot = store.fetch(manifest.input("snapshot").digest("samples.parquet"), folder)
        given = _presence(snapshot)
        signals = store.fetch(manifest.output("signals.parquet").digest, folder)
        made = _presence(signals)
        ids = _ids(made)
        letters = store.fetch(manifest.output("dead_letters.parquet").digest, folder)
        tensors = map_arrow(store.fetch(manifest.output("tensors.arrow").digest, folder))
        return (
            _rows_finding(_ids(given), ids, _ids(read_parquet(letters, ["id"]))),
            modalities_finding(given, made),
            _ids_finding("ids of tensors.arrow and signals.parquet", _ids(tensors), ids),
            tensor_finding(tensors),
            *judge_rows(
                suite_parts(signals, suite),
                letters=letters,
                given=[snapshot],
                suite=suite,
                exclusions=read_exclusions(rules),
            ),
        )


def validate_embeddings(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """The same samples as the features, and finite vectors of length one for what the encoder embeds."""
    del rules
    embedded = _embedded(manifest)
    features = read_manifest(store, manifest.input("features").manifest)
    with scratch_folder("check") as folder:
        columns = ["id", *(f"has_{modality}" for modality in embedded)]
        expected = read_parquet(store.fetch(features.output("signals.parquet").digest, folder), columns)
        embeddings = read_parquet(store.fetch(manifest.output("embeddings.parquet").digest, folder))
        signals = read_parquet(store.fetch(manifest.output("signals.parquet").digest, folder), ["id"])
        return (
            _ids_finding("ids of embeddings.parquet and of features", _ids(embeddings), _ids(expected)),
            _ids_finding("ids of signals.parquet and of features", _ids(signals), _ids(expected)),
            *(_presence_finding(modality, embeddings, expected.column(f"has_{modality}")) for modality in embedded),
            *(_absence_finding(modality, embeddings, embedded) for modality in NAMES if modality not in embedded),
            *(embedding_finding(modality, embeddings) for modality in NAMES),
        )


def tensor_finding(tensors: pa.Table) -> Finding:
    """Whether every tensor has the size its schema metadata promises and only values in range."""
    shape = {name.decode(): int(value) for name, value in (tensors.schema.metadata or {}).items()}
    failing: list[str] = []
    for batch in tensors.to_batches():
        names = batch.column("id").to_pylist()
        parts = _parts(batch)
        for modality in NAMES:
            is_sound = aspect(modality, "column").is_sound
            for name, value, own in zip(names, batch.column(modality), parts, strict=True):
                lengths = lengths_of(own, modality)
                values = explode(pa.array([value]), [lengths]) if len(lengths) > 1 and value.is_valid else [value]
                if value.is_valid and not all(is_sound(one, shape) for one in values):
                    failing.append(name)
    return _finding(
        "tensors",
        set(failing),
        f"tensors of {tensors.num_rows} samples: sizes as declared, values in range",
    )


def _parts(batch: pa.RecordBatch) -> list[Parts | None]:
    if PARTS not in batch.schema.names:
        return [None] * batch.num_rows
    return [parse_parts(value) for value in batch.column(PARTS).to_pylist()]


def embedding_finding(modality: str, embeddings: pa.Table) -> Finding:
    """Whether every vector of a modality is finite and of length one."""
    column = embeddings.column(modality).combine_chunks()
    ids = embeddings.column("id").filter(column.is_valid()).to_pylist()
    vectors: npt.NDArray[np.float32] = column.drop_null().flatten().to_numpy(zero_copy_only=False)
    failing: list[str] = []
    if ids:
        length = np.sqrt((vectors.reshape(len(ids), -1).astype(np.float64) ** 2).sum(axis=1))
        bad = np.flatnonzero(~(np.abs(length - 1.0) <= UNIT_TOLERANCE))
        failing = [ids[row] for row in bad]
    return _finding(f"{modality}_unit_norm", failing, f"{modality}: {len(ids)} finite vectors of length 1")


def _presence(path: Path) -> pa.Table:
    """Of a table of samples their ids, which modalities they have, and where these come from."""
    known = pq.read_schema(path).names
    wanted = ["id", *(f"has_{name}" for name in NAMES), *(name for name, _ in origin.COLUMNS)]
    return read_parquet(path, [name for name in wanted if name in known])


def _rows_finding(samples: Sequence[str], rows: Sequence[str], letters: Sequence[str]) -> Finding:
    """Whether every sample of the snapshot has features or is a dead letter, and nothing else is one of these."""
    counts = Counter(samples)
    counts.subtract([*rows, *letters])
    promise = f"{len(samples)} samples in the snapshot; {len(rows)} have features and {len(letters)} are dead letters"
    return _finding("rows", [str(name) for name, number in counts.items() if number], promise)


def modalities_finding(given: pa.Table, made: pa.Table) -> Finding:
    """Whether samples have the modalities of the snapshot, and others only where a track of another holds them.

    Args:
        given: Of the snapshot, with ``id`` and ``has_<modality>``.
        made: The same of features, with ``<modality>_origin``.
    """
    had = {name: _flags(given, f"has_{name}") for name in NAMES}
    failing: set[str] = set()
    for name in NAMES:
        has = _flags(made, f"has_{name}")
        column = f"{name}_origin"
        origins = made.column(column).to_pylist() if column in made.column_names else [None] * made.num_rows
        for sample, source in zip(_ids(made), origins, strict=True):
            is_added = sample in has and source in HELD_BY[name] and sample in had[source]
            if (sample in has) != (sample in had[name] or is_added):
                failing.add(sample)
    return _finding(
        "modalities", failing, f"{made.num_rows} samples have the modalities of the snapshot or their tracks"
    )


def _flags(table: pa.Table, column: str) -> set[str]:
    """Ids of the rows for which a column is true."""
    return set(_ids(table.filter(table.column(column)))) if column in table.column_names else set()


def _presence_finding(modality: str, embeddings: pa.Table, expected: pa.ChunkedArray) -> Finding:
    present = embeddings.column(modality).is_valid().to_pylist()
    names = _ids(embeddings)
    failing = [
        name for name, is_there, due in zip(names, present, expected.to_pylist(), strict=False) if is_there != due
    ]
    return _finding(f"{modality}_present", failing, f"{modality}: a vector exactly where features have the modality")


def _embedded(manifest: Manifest) -> tuple[str, ...]:
    """The modalities that the encoder embeds: what the parameters of one with weights from elsewhere say, else all."""
    facts = manifest.params.get(PRETRAINED)
    return tuple(facts[EMBEDDED]) if isinstance(facts, dict) else NAMES


def _absence_finding(modality: str, embeddings: pa.Table, embedded: Sequence[str]) -> Finding:
    column = embeddings.column(modality)
    failing = [name for name, is_there in zip(_ids(embeddings), column.is_valid().to_pylist(), strict=True) if is_there]
    promise = f"{modality}: no vectors, since the encoder embeds {' and '.join(embedded)} alone"
    return _finding(f"{modality}_absent", failing, promise)


def _ids_finding(subject: str, actual: Sequence[str], expected: Sequence[str]) -> Finding:
    differing = sorted(set(actual) ^ set(expected))
    if not differing and list(actual) != list(expected):
        return Finding(rule="same_ids", passed=False, detail=f"{subject}: are the same in another order")
    return _finding("same_ids", differing, f"{subject}: {len(actual)} and {len(expected)} rows, the same in one order")


def _ids(table: pa.Table) -> list[str]:
    return table.column("id").to_pylist()


def _finding(rule: str, failing: Iterable[str], promise: str) -> Finding:
    names = sorted(failing)
    detail = promise if not names else f"{promise}: does not hold for {len(names)}, for example {names[0]}"
    return Finding(
        rule=rule,
        passed=not names,
        detail=detail,
        num_failing=len(names),
        failing_ids=tuple(names[:MAX_FAILING_IDS]),
    )
