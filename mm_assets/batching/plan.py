"""Computes the batch plan: which samples every lane sees at every step, and where in which pack.

A plan is a function of the dataset release's narrow columns, the plan's parameters and the seed. It is computed once,
centrally, and followed by any number of loaders; packing inside workers would make it depend on their number.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.mixing import epoch_counts, grouped_by
from mm_assets.batching.plan_file import PLAN, PlanWriter
from mm_assets.batching.rows import CLS_TOKENS, LENGTH_COLUMNS, TOKEN_COLUMNS, part_tokens, train_mask
from mm_assets.batching.schedule import Ints, Slots, schedule, total_lengths
from mm_assets.errors import StageError
from mm_assets.identity.canonical import Json, canonical_json, to_json
from mm_assets.modalities.parts import PARTS, parse_parts
from mm_assets.modalities.table import NAMES, aspect
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import JSON_TYPE, PARQUET_TYPE

SCHEMA = "mm.plan/2"
COLUMNS = ["id", "split", "selected", *LENGTH_COLUMNS.values()]
#: The column of ``samples.parquet`` behind what groups are made of; combinations follow from the lengths.
GROUP_COLUMNS = {"source": "source", "language": "language", "label": "label"}
#: Rows of ``samples.parquet`` that are read at a time.
READ_ROWS = 1 << 17


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """The samples that a plan is about, in file order.

    Attributes:
        rows: Their row numbers in ``samples.parquet``.
        ids: Their ids.
        tokens: Their tokens by modality.
        groups: By name, what groups of samples are weighted by; null where a sample has none.
        num_cut: Samples whose last parts a pack has no room for.
        cut_tokens: Tokens of those parts by modality.
    """

    rows: Ints
    ids: pa.Array
    tokens: Mapping[str, Ints]
    groups: Mapping[str, pa.Array]
    num_cut: int
    cut_tokens: Mapping[str, int]


def compute_batch_plan(job: Job) -> StageResult:
    """Writes ``plan.parquet`` and ``plan.json``.

    Raises:
        StageError: nothing is selected for training, or a sample is longer than a pack.
    """
    config = TypeAdapter(PlanConfig).validate_python(job.params["plan"])
    seed = job.params["seed"]
    assert isinstance(seed, int)
    sizes = {name: int(str(job.params[name])) for name in ("image_size", "video_size")}
    planned = read_planned(job.fetch("dataset_release", "samples.parquet"), config, **sizes)
    path = job.workdir / "plan.parquet"
    summary = write_plan(planned, config, seed, path)
    (job.workdir / "plan.json").write_bytes(canonical_json(summary))
    files = (
        OutputFile(name="plan.parquet", path=path, media_type=PARQUET_TYPE, num_rows=int(str(summary["num_slots"]))),
        OutputFile(name="plan.json", path=job.workdir / "plan.json", media_type=JSON_TYPE),
    )
    stats: dict[str, Json] = {
        "rows_in": summary["num_samples"],
        "rows_out": summary["num_slots"],
        "dead_letters": 0,
        **{name: summary[name] for name in ("num_steps", "steps_per_epoch", "padding_efficiency")},
    }
    if planned.num_cut:
        stats["samples_cut"] = planned.num_cut
    return StageResult(files=files, stats=stats)


def read_planned(path: Path, config: PlanConfig, *, image_size: int, video_size: int) -> Planned:
    """What ``samples.parquet`` says about the samples that are trained on."""
    shape = {
        "image_size": image_size, "image_patch": config.image_patch, "audio_stack": config.audio_stack,
        "video_size": video_size, "video_patch": config.video_patch,
    }  # fmt: skip
    file = pq.ParquetFile(path)
    has_parts = PARTS in file.schema_arrow.names
    grouped = [GROUP_COLUMNS[name] for name in grouped_by(config) if name in GROUP_COLUMNS]
    columns = [*COLUMNS, *(name for name in grouped), *([PARTS] if has_parts else [])]
    rows: list[Ints] = []
    ids: list[pa.Array] = []
    tokens: dict[str, list[Ints]] = {name: [] for name in NAMES}
    groups: dict[str, list[pa.Array]] = {name: [] for name in grouped}
    cut, num_cut, first = Counter[str](), 0, 0
    for batch in file.iter_batches(READ_ROWS, columns=columns, use_threads=False):
        mask = train_mask(batch)
        rows.append(first + np.flatnonzero(mask).astype(np.int32))
        first += len(batch)
        kept = batch.filter(pa.array(mask))
        ids.append(kept["id"])
        counted = _tokens(kept, shape)
        if has_parts:
            num_cut += _count_parts(kept[PARTS], counted, cut, shape, config.pack_tokens)
        for name in NAMES:
            tokens[name].append(counted[name])
        for name in grouped:
            groups[name].append(kept[name])
    by_name = {name: np.concatenate([np.zeros(0, np.int32), *parts]) for name, parts in tokens.items()}
    values = {name: pa.chunked_array(parts, pa.string()).combine_chunks() for name, parts in groups.items()}
    if "modalities" in grouped_by(config):
        values["modalities"] = _combinations(by_name)
    return Planned(
        rows=np.concatenate([np.zeros(0, np.int32), *rows]),
        ids=pa.chunked_array(ids, pa.string()).combine_chunks(),
        tokens=by_name,
        groups=values,
        num_cut=num_cut,
        cut_tokens={name: cut[name] for name in NAMES},
    )


def write_plan(planned: Planned, config: PlanConfig, seed: int, path: Path) -> dict[str, Json]:
    """Writes ``plan.parquet`` and returns ``plan.json``: sizes of the plan, and how full its packs are.

    Raises:
        StageError: nothing is selected for training, a sample is longer than a pack, or a weight names no group.
    """
    total = total_lengths(planned.tokens)
    _check_lengths(planned, total, config)
    used = Counter[str]()
    num_slots = num_packs = num_steps = epochs = 0
    counts = epoch_counts(config, len(total), planned.groups, seed=seed)
    with PlanWriter(path) as writer:
        for slots in schedule(total, counts, config, seed):
            writer.write(_table(slots, planned))
            num_slots += len(slots.step)
            num_packs += int((slots.slot == 0).sum())
            num_steps, epochs = int(slots.step[-1]) + 1, max(epochs, int(slots.epoch.max()) + 1)
            for name in NAMES:
                used[name] += int(planned.tokens[name][slots.position].sum(dtype=np.int64))
    used_tokens = used.total() + CLS_TOKENS * num_slots
    in_step = config.num_lanes * config.packs_per_lane * config.pack_tokens
    return {
        "schema": SCHEMA,
        **{name: value for name, value in _object(to_json(config)).items() if name != "num_steps"},
        "num_steps": num_steps,
        "epochs": epochs,
        "num_samples": len(total),
        "num_slots": num_slots,
        "num_packs": num_packs,
        "used_tokens": used_tokens,
        "tokens": {name: used[name] for name in NAMES},
        "cut_tokens": dict(planned.cut_tokens),
        "padding_efficiency": round(used_tokens / (num_packs * config.pack_tokens), 6),
        "steps_per_epoch": -(-int(total.sum(dtype=np.int64)) // in_step),
    }


def _table(slots: Slots, planned: Planned) -> pa.Table:
    position = slots.position
    columns = {
        **{name: getattr(slots, name) for name in ("epoch", "step", "lane", "pack", "slot", "start")},
        "sample": planned.rows[position],
        "id": planned.ids.take(pa.array(position)),
        **{column: planned.tokens[name][position] for name, column in TOKEN_COLUMNS.items()},
    }
    return pa.table({name: columns[name] for name in PLAN.names}, schema=PLAN)


def _tokens(rows: pa.RecordBatch, shape: Mapping[str, int]) -> dict[str, Ints]:
    """Tokens of plain samples, by modality."""
    return {
        name: aspect(name, "tokens")
        .count(rows[column].to_numpy(zero_copy_only=False).astype(np.int64), shape)
        .astype(np.int32)
        for name, column in LENGTH_COLUMNS.items()
    }


def _count_parts(
    parts: pa.Array, tokens: Mapping[str, Ints], cut: Counter[str], shape: Mapping[str, int], pack_tokens: int
) -> int:
    """Puts the tokens of samples with parts into ``tokens`` and of parts without room into ``cut``; counts the cut."""
    num_cut = 0
    for position in np.flatnonzero(parts.is_valid().to_numpy(zero_copy_only=False)):
        own = parse_parts(parts[int(position)].as_py()) or ()
        kept = part_tokens(own, shape, pack_tokens)
        for name in NAMES:
            tokens[name][position] = sum(count for modality, count in kept if modality == name)
        for modality, length in own[len(kept) :]:
            cut[modality] += aspect(modality, "tokens").count(length, shape)
        num_cut += len(kept) < len(own)
    return num_cut


def _combinations(tokens: Mapping[str, Ints]) -> pa.Array:
    """The modalities of each sample, joined by ``+``."""
    bits = sum((tokens[name] > 0).astype(np.int8) << index for index, name in enumerate(NAMES))
    names = [
        "+".join(name for index, name in enumerate(NAMES) if value >> index & 1) for value in range(1 << len(NAMES))
    ]
    return pc.take(pa.array(names), pa.array(bits))


def _check_lengths(planned: Planned, total: Ints, config: PlanConfig) -> None:
    too_long = np.flatnonzero(total > config.pack_tokens)
    if len(too_long):
        first = int(too_long[0])
        raise StageError(
            f"batch plan: sample {planned.ids[first].as_py()} does not fit a pack: expected at most "
            f"{config.pack_tokens} tokens, got {total[first]}. Raise plan.pack_tokens or lower "
            "features.max_text_tokens, features.max_audio_seconds and features.video_frames."
        )


def _object(value: Json) -> dict[str, Json]:
    assert isinstance(value, dict)
    return value
