"""Leakage-safe splits: whole groups go to train, val or test by a hash, and assignments never change.

A group's split is drawn from the hash of its smallest key, so it does not depend on what else is in the release. A
group with samples of the parent release takes over their split. Where new data reveals that samples which the
parent put into different splits belong together, assignments stay: the samples that reveal it are left out instead.
Split numbers are positions in ``config.SPLITS``; -1 is "none yet".
"""

import hashlib

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.identity.canonical import canonical_json
from mm_assets.release.config import SPLITS, FreezeConfig
from mm_assets.release.dedup import Bools, Ints, components

TRAIN = SPLITS.index("train")


def draw(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on ``key`` and ``seed`` alone."""
    return int.from_bytes(hashlib.sha256(canonical_json([seed, key])).digest()[:6], "big") / 2**48


def draws(database: duckdb.DuckDBPyConnection, keys: str, seed: int) -> npt.NDArray[np.float64]:
    """``draw`` of every key, in the order of the query ``keys``, which has one column ``key``."""
    # JSON writes every other text as it is.
    is_plain = r"""NOT regexp_matches(key, '[\x00-\x1f"\\]')"""
    number = f"""CAST('0x' || left(sha256('[{seed},"' || key || '"]'), 12) AS BIGINT)"""
    found = database.sql(
        f"""SELECT CASE WHEN {is_plain} THEN {number} END AS number, CASE WHEN NOT ({is_plain}) THEN key END AS key
            FROM ({keys})"""
    ).to_arrow_table()
    result = found["number"].fill_null(0).to_numpy() / 2**48
    rest = np.flatnonzero(found["number"].is_null().to_numpy())
    result[rest] = [draw(key, seed) for key in found["key"].take(pa.array(rest)).to_pylist()]
    return result


def separate(num_rows: int, rows: Ints, keys: Ints, *, inherited: Ints, left_out: Bools) -> tuple[Ints, Bools]:
    """Leakage groups none of which inherits two splits, and the rows that had to be left out for that.

    Left out are, each only as far as the step before did not suffice: new rows that themselves touch two splits; the
    other new rows of such a group; rows of the parent outside the most protected split (test, then val) there.

    Args:
        num_rows: Rows are 0 .. num_rows - 1.
        rows: Row of each (row, key) pair.
        keys: Key number of each pair.
        inherited: Split each row had in the parent release, -1 for a new row.
        left_out: Rows that connect nothing because an earlier release left them out.

    Returns:
        The smallest row of each row's group, and ``left_out`` with the further rows.
    """
    left_out = left_out.copy()
    for choose in (_bridges, _newcomers, _less_protected):
        kept = ~left_out[rows]
        groups = components(num_rows, rows[kept], keys[kept])
        torn = _torn(groups, inherited, left_out)
        if not torn.any():
            return groups, left_out
        left_out |= torn & choose(groups, rows[kept], keys[kept], inherited)
    kept = ~left_out[rows]
    return components(num_rows, rows[kept], keys[kept]), left_out


def _split_bits(inherited: Ints) -> Ints:
    return np.where(inherited >= 0, np.left_shift(1, np.maximum(inherited, 0)), 0)


def _torn(groups: Ints, inherited: Ints, left_out: Bools) -> Bools:
    bits = np.zeros(len(groups), dtype=np.int64)
    np.bitwise_or.at(bits, groups, np.where(left_out, 0, _split_bits(inherited)))
    return ((bits & (bits - 1)) != 0)[groups] & ~left_out


def _bridges(groups: Ints, rows: Ints, keys: Ints, inherited: Ints) -> Bools:
    of_key = np.zeros(int(keys.max(initial=0)) + 1, dtype=np.int64)
    np.bitwise_or.at(of_key, keys, _split_bits(inherited)[rows])
    touched = np.zeros(len(groups), dtype=np.int64)
    np.bitwise_or.at(touched, rows, of_key[keys])
    return (inherited < 0) & ((touched & (touched - 1)) != 0)


def _newcomers(groups: Ints, rows: Ints, keys: Ints, inherited: Ints) -> Bools:
    return inherited < 0


def _less_protected(groups: Ints, rows: Ints, keys: Ints, inherited: Ints) -> Bools:
    most = np.full(len(groups), -1, dtype=np.int64)
    np.maximum.at(most, groups, _protection(inherited))
    return _protection(inherited) < most[groups]


def _protection(inherited: Ints) -> Ints:
    return np.where(inherited < 0, -1, np.array([0, 1, 2], dtype=np.int64)[inherited])


def assign(
    groups: Ints,
    draws: npt.NDArray[np.float64],
    *,
    inherited: Ints,
    selected: Bools,
    labels: Ints,
    config: FreezeConfig,
) -> Ints:
    """The split of every row.

    Hashes alone can leave a split of a small release empty, or a class out of training. Then single groups, the ones
    with the smallest draws and none of them inherited, are moved: into empty splits first, then into train for
    classes it lacks, as long as that empties no split.

    Args:
        groups: Smallest row of each row's leakage group.
        draws: Of the smallest key of each group, groups in ascending order of their smallest row.
        inherited: Split each row had in the parent release, -1 for a new row.
        selected: Rows that are in the release; only they count for emptiness and classes.
        labels: Class number of each row, -1 for none.
        config: The split fractions.
    """
    number = np.unique(groups, return_inverse=True)[1]
    num_groups = len(draws)
    bounds = np.cumsum(config.fractions)[:-1]
    split = np.searchsorted(bounds, draws, side="right").astype(np.int64)
    # With a fraction of 0 two bounds coincide and the draw falls behind both, as it should.
    heir = np.full(num_groups, -1, dtype=np.int64)
    np.maximum.at(heir, number, inherited)
    split = np.where(heir >= 0, heir, split)
    is_used = np.zeros(num_groups, dtype=np.bool_)
    is_used[number[selected]] = True
    movable = is_used & (heir < 0)
    _fill_empty(split, draws, is_used, movable, config)
    is_labelled = selected & (labels >= 0)
    _teach_classes(split, draws, is_used, movable, number[is_labelled], labels[is_labelled])
    return np.where(inherited >= 0, inherited, split[number])


def _counts(split: Ints, is_used: Bools) -> Ints:
    return np.bincount(split[is_used], minlength=len(SPLITS)).astype(np.int64)


def _fill_empty(split: Ints, draws: np.ndarray, is_used: Bools, movable: Bools, config: FreezeConfig) -> None:
    wanted = [index for index, fraction in enumerate(config.fractions) if fraction > 0]
    for index in wanted:
        counts = _counts(split, is_used)
        donor = int(counts.argmax())
        candidates = np.flatnonzero(movable & (split == donor))
        if counts[index] or counts[donor] < 2 or is_used.sum() < len(wanted) or not len(candidates):
            continue
        split[candidates[draws[candidates].argmin()]] = index


def _teach_classes(split: Ints, draws: np.ndarray, is_used: Bools, movable: Bools, number: Ints, labels: Ints) -> None:
    if len(labels) == 0:
        return
    candidate = movable[number] & ~np.isin(labels, np.unique(labels[split[number] == TRAIN]))
    pairs = np.unique(np.stack([number[candidate], labels[candidate]]), axis=1)
    counts = _counts(split, is_used)
    taught: set[int] = set()
    for group, label in pairs[:, np.lexsort((pairs[0], draws[pairs[0]]))].T.tolist():
        source = int(split[group])
        if label not in taught and source != TRAIN and counts[source] > 1:
            split[group] = TRAIN
            counts[source] -= 1
        if split[group] == TRAIN:
            taught.add(label)
