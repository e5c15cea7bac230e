"""What people look at before they look at files: modality counts and the spread of each signal, as Markdown."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.modalities import caption
from mm_assets.modalities.table import NAMES, PACKED, aspect
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet

MAX_LANGUAGES = 8


def preview(store: Store, manifest: Manifest) -> str:
    """Markdown tables about one shard's ``signals.parquet``."""
    with scratch_folder("preview") as folder:
        signals = read_parquet(store.fetch(manifest.output("signals.parquet").digest, folder))
    return "\n\n".join([_modalities(signals, manifest), _spread(signals), _languages(signals)]) + "\n"


def _named(group: str) -> list[str]:
    """Columns that the modalities want shown, by the name of the group."""
    return [name for modality in PACKED for name in getattr(aspect(modality, "signals"), group)]


def _modalities(signals: pa.Table, manifest: Manifest) -> str:
    counts = {name: sum(signals.column(f"has_{name}").to_pylist()) for name in NAMES}
    flags = {name.removeprefix("has_"): sum(filter(None, signals.column(name).to_pylist())) for name in _named("FLAGS")}
    cells = {"samples": signals.num_rows, **counts, "dead letters": manifest.stats.get("dead_letters", 0), **flags}
    return _table(list(cells), [[str(value) for value in cells.values()]])


def _spread(signals: pa.Table) -> str:
    rows: list[list[str]] = []
    for name in (*_named("NUMBERS"), *caption.NUMBERS):
        values: npt.NDArray[np.float64] = signals.column(name).drop_null().to_numpy().astype(np.float64)
        if len(values):
            quantiles = np.percentile(values, [0, 5, 50, 95, 100])
            rows.append([name, str(len(values)), *(f"{value:.3g}" for value in quantiles)])
    return _table(["signal", "samples", "min", "5 %", "median", "95 %", "max"], rows)


def _languages(signals: pa.Table) -> str:
    found = [name for name in signals.column("language_id").to_pylist() if name is not None]
    counts = sorted((-found.count(name), name) for name in set(found))[:MAX_LANGUAGES]
    cells = [[name, str(-count)] for count, name in counts]
    num_texts = sum(signals.column("has_text").to_pylist())
    return _table(["guessed language", "texts"], [*cells, ["no guess", str(num_texts - len(found))]])


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
