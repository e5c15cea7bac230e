"""Computes the batch plan: which samples every lane sees at every step, and where in which pack.

A plan is a function of the dataset release's narrow columns, the plan's parameters and the seed. It is computed once,
centrally, and followed by any number of loaders; packing inside workers would make it depend on their number.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.rows import (
    CLS_TOKENS,
    LENGTH_COLUMNS,
    TOKEN_COLUMNS,
    part_tokens,
    read_samples,
    train_rows,
)
from mm_assets.batching.schedule import Ints, Lengths, schedule, steps_per_epoch
from mm_assets.errors import StageError
from mm_assets.identity.canonical import Json, canonical_json, to_json
from mm_assets.modalities.parts import PARTS, Parts, parse_parts
from mm_assets.modalities.table import NAMES, aspect
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import JSON_TYPE, PARQUET_TYPE, write_parquet

SCHEMA = "mm.plan/1"
COLUMNS = ["id", "split", "selected", *LENGTH_COLUMNS.values()]
PLAN = pa.schema(
    [
        *(pa.field(name, pa.int32(), nullable=False) for name in ("epoch", "step", "lane", "pack", "slot", "sample")),
        pa.field("id", pa.string(), nullable=False),
        *(pa.field(name, pa.int32(), nullable=False) for name in (*TOKEN_COLUMNS.values(), "start")),
    ]
)


def compute_batch_plan(job: Job) -> StageResult:
    """Writes ``plan.parquet`` and ``plan.json``.

    Raises:
        StageError: nothing is selected for training, or a sample is longer than a pack.
    """
    workdir = job.workdir
    samples = read_samples(job.fetch("dataset_release", "samples.parquet"), COLUMNS)
    config = PlanConfig(**job.params["plan"])  # pyright: ignore[reportCallIssue]
    seed = job.params["seed"]
    assert isinstance(seed, int)
    sizes = {name: int(str(job.params[name])) for name in ("image_size", "video_size")}
    table = build_plan(samples, config, seed=seed, **sizes)
    lengths = token_lengths(samples, train_rows(samples), config, **sizes)
    summary = {
        **summarise(table, config),
        "num_samples": len(lengths.total),
        "steps_per_epoch": steps_per_epoch(lengths, config, seed=seed),
    }
    (workdir / "plan.json").write_bytes(canonical_json(summary))
    files = (
        OutputFile(
            name="plan.parquet",
            path=write_parquet(table, workdir / "plan.parquet"),
            media_type=PARQUET_TYPE,
            num_rows=len(table),
        ),
        OutputFile(name="plan.json", path=workdir / "plan.json", media_type=JSON_TYPE),
    )
    stats: dict[str, Json] = {
        "rows_in": summary["num_samples"],
        "rows_out": len(table),
        "dead_letters": 0,
        "num_steps": summary["num_steps"],
        "steps_per_epoch": summary["steps_per_epoch"],
        "padding_efficiency": summary["padding_efficiency"],
    }
    if PARTS in samples.column_names:
        stats["samples_cut"] = count_cut(samples, train_rows(samples), config, **sizes)
    return StageResult(files=files, stats=stats)


def token_lengths(samples: pa.Table, rows: Ints, config: PlanConfig, *, image_size: int, video_size: int) -> Lengths:
    """Tokens of the given rows, by modality; of parts those that a pack has room for."""
    shape = _shape(config, image_size=image_size, video_size=video_size)
    tokens: dict[str, Ints] = {
        name: aspect(name, "tokens").count(samples[column].to_numpy(zero_copy_only=False)[rows].astype(np.int64), shape)
        for name, column in LENGTH_COLUMNS.items()
    }
    for position, parts in _parts(samples, rows):
        kept = Counter[str]()
        for modality, num_tokens in part_tokens(parts, shape, config.pack_tokens):
            kept[modality] += num_tokens
        for name in NAMES:
            tokens[name][position] = kept[name]
    return Lengths(tokens=tokens)


def _parts(samples: pa.Table, rows: Ints) -> Iterator[tuple[int, Parts]]:
    """Position in ``rows`` and parts of every sample that is not plain."""
    if PARTS in samples.column_names:
        column = samples[PARTS].take(pa.array(rows))
        for position in np.flatnonzero(column.is_valid().to_numpy()):
            yield int(position), parse_parts(column[int(position)].as_py()) or ()


def _shape(config: PlanConfig, *, image_size: int, video_size: int) -> dict[str, int]:
    return {
        "image_size": image_size, "image_patch": config.image_patch, "audio_stack": config.audio_stack,
        "video_size": video_size, "video_patch": config.video_patch,
    }  # fmt: skip


def count_cut(samples: pa.Table, rows: Ints, config: PlanConfig, *, image_size: int, video_size: int) -> int:
    """Samples whose last parts a pack has no room for."""
    shape = _shape(config, image_size=image_size, video_size=video_size)
    return sum(len(part_tokens(parts, shape, config.pack_tokens)) < len(parts) for _, parts in _parts(samples, rows))


def build_plan(samples: pa.Table, config: PlanConfig, *, seed: int, image_size: int, video_size: int) -> pa.Table:
    """The plan of a release, sorted by (step, lane, pack, slot); ``start`` is a sample's first token in its pack."""
    rows = train_rows(samples)
    lengths = token_lengths(samples, rows, config, image_size=image_size, video_size=video_size)
    _check_lengths(samples, rows, lengths, config)
    total = lengths.total
    slots: list[tuple[int, int, int, int, int, int, int]] = []
    for step, planned in enumerate(schedule(lengths, config, seed)):
        for lane, packs in enumerate(planned.lanes):
            for pack, members in enumerate(packs):
                start = 0
                for slot, position in enumerate(members):
                    slots.append((planned.epoch, step, lane, pack, slot, position, start))
                    start += int(total[position])
    epoch, step, lane, pack, slot, position, start = np.array(slots, np.int32).T
    columns = {
        "epoch": epoch, "step": step, "lane": lane, "pack": pack, "slot": slot, "sample": rows[position],
        "id": samples["id"].take(pa.array(rows[position])), "start": start,
        **{column: lengths.tokens[name][position] for name, column in TOKEN_COLUMNS.items()},
    }  # fmt: skip
    return pa.table(
        {name: _column(columns[name], PLAN.field(name).type) for name in PLAN.names},
        schema=PLAN,
    )


def summarise(table: pa.Table, config: PlanConfig) -> dict[str, Json]:
    """Sizes of the plan and how full its packs are, as ``plan.json`` has them."""
    used = sum(int(table[name].to_numpy().sum()) for name in TOKEN_COLUMNS.values())
    used += CLS_TOKENS * len(table)
    num_packs = int((table["slot"].to_numpy() == 0).sum())
    epoch, step = table["epoch"].to_numpy(), table["step"].to_numpy()
    return {
        "schema": SCHEMA,
        **{name: value for name, value in _object(to_json(config)).items() if name != "num_steps"},
        "num_steps": int(step.max()) + 1,
        "epochs": int(epoch.max()) + 1,
        "num_slots": len(table),
        "num_packs": num_packs,
        "used_tokens": used,
        "padding_efficiency": round(used / (num_packs * config.pack_tokens), 6),
    }


def _check_lengths(samples: pa.Table, rows: Ints, lengths: Lengths, config: PlanConfig) -> None:
    too_long = np.flatnonzero(lengths.total > config.pack_tokens)
    if len(too_long):
        first = int(too_long[0])
        raise StageError(
            f"batch plan: sample {samples['id'][int(rows[first])].as_py()} does not fit a pack: expected at most "
            f"{config.pack_tokens} tokens, got {lengths.total[first]}. Raise plan.pack_tokens or lower "
            "features.max_text_tokens, features.max_audio_seconds and features.video_frames."
        )


def _column(values: object, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)


def _object(value: Json) -> dict[str, Json]:
    assert isinstance(value, dict)
    return value
