"""Checkpoints in the store: kept as they are made, found again after a kill, in whatever folder or machine.

``checkpoints/<fingerprint hex>/<step>.json`` is a record; what it names are objects. Records are written once: a run
that reaches a step with other bits than an earlier attempt is a failure of determinism, and says so.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from mm_assets.errors import NonDeterminismError, ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import digest_hex
from mm_assets.store.objects import Store
from mm_assets.training.chain import CheckpointRecord, read_record, step_name

logger = logging.getLogger(__name__)


def record_key(fingerprint: str, step: int) -> str:
    """``checkpoints/<fingerprint hex>/<step>.json``."""
    return f"checkpoints/{digest_hex(fingerprint)}/{step_name(step)}.json"


def find_chain(store: Store, fingerprint: str, *, run: str) -> list[CheckpointRecord]:
    """The stored checkpoints of an action, oldest first, up to the last one that is whole; ``run`` is its spec's.

    A record that cannot be used (unreadable, out of the chain, or an object of it is gone) ends the chain with a
    warning: training goes on from the one before and makes it again.
    """
    records: list[CheckpointRecord] = []
    for key in sorted(info.key for info in store.list_keys(f"checkpoints/{digest_hex(fingerprint)}/")):
        try:
            record = _read(store, key)
        except (ObjectMissingError, ObjectCorruptError) as error:
            logger.warning("%s: is not used: %s", store.uri(key), error)
            break
        problem = chain_problem([*records, record], run)
        if problem:
            logger.warning("%s: is not used: %s", store.uri(key), problem)
            break
        records.append(record)
    return records


def chain_problem(records: list[CheckpointRecord], run: str) -> str | None:
    """Why the records are not one chain from the run's first checkpoint on; None if they are."""
    previous: CheckpointRecord | None = None
    for record in records:
        if record.run != run:
            return f"checkpoint {record.step} belongs to another run: {record.run}"
        if record.previous != (previous.digest if previous else None):
            return f"checkpoint {record.step} does not follow checkpoint {previous.step if previous else 'none'}"
        if previous is not None and record.step <= previous.step:
            return f"checkpoint {record.step} is not later than checkpoint {previous.step}"
        previous = record
    return None


def _read(store: Store, key: str) -> CheckpointRecord:
    current = store.read_key(key)
    if current is None:
        raise ObjectMissingError(f"{store.uri(key)}: does not exist.")
    try:
        record = read_record(current.data)
    except (ValidationError, ValueError) as error:
        raise ObjectCorruptError(f"{store.uri(key)}: is not a checkpoint record.") from error
    for digest in (record.state, record.segment):
        if not store.has_object(digest):
            raise ObjectMissingError(f"{store.object_uri(digest)}: does not exist.")
    return record


@dataclass(kw_only=True, slots=True)
class Uploader:
    """Stores the checkpoints that appear in ``folder``; ``records`` holds all of the run so far.

    ``fingerprint`` is the action's: other code never goes on from these checkpoints.
    """

    store: Store
    folder: Path
    fingerprint: str
    records: list[CheckpointRecord] = field(default_factory=list[CheckpointRecord])

    def poll(self) -> None:
        """Stores what appeared since the last call.

        Raises:
            NonDeterminismError: an earlier attempt of the same run had other bits at a step.
        """
        last = self.records[-1].step if self.records else 0
        paths = [path for path in self.folder.glob("*.json") if path.stem.isdigit() and int(path.stem) > last]
        for path in sorted(paths):
            self._upload(path)

    def _upload(self, path: Path) -> None:
        data = path.read_bytes()
        record = read_record(data)
        name = step_name(record.step)
        self.store.put_file(self.folder / f"{name}.safetensors")
        self.store.put_file(self.folder / f"{name}.segment.json")
        if not self.store.create_key(record_key(self.fingerprint, record.step), data):
            raise NonDeterminismError(
                f"{self.store.uri(record_key(self.fingerprint, record.step))}: an earlier attempt had other bits at "
                f"step {record.step}. Compare the two records; delete the stored one to train on."
            )
        self.records.append(record)
        logger.info("model: checkpoint %d is stored", record.step)
