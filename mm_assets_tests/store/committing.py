"""Commits partitions without a pipeline: actions that differ by one parameter, and files as their outputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mm_assets.identity.canonical import Json, digest_bytes
from mm_assets.store.action import Action, Maker
from mm_assets.store.commit import Attempt, Committed, OutputFile, StageResult
from mm_assets.store.manifest import Input, Partition
from mm_assets.store.objects import Store, object_key

CODE = digest_bytes(b"code")
PARTITION = Partition(release="r1", shard="0000")
Compute = Callable[[], StageResult]


def action_of(params: Json = "p", *, asset: str = "snapshot", code: str = CODE, inputs: Sequence[Input] = ()) -> Action:
    """An action that differs by ``params``."""
    return Action(asset=asset, code=code, params={"p": params}, environment={}, inputs=tuple(inputs))


def materialize(
    store: Store,
    action: Action,
    compute: Compute,
    *,
    partition: Partition = PARTITION,
    run_id: str | None = None,
    force: bool = False,
    adopted: Sequence[Maker] = (),
) -> Committed:
    """One attempt, in the order in which a run makes it."""
    attempt = Attempt(store, action, partition, run_id)
    known = None if force else attempt.commit_known(adopted)
    return known or attempt.commit_result(compute())


def writing(folder: Path, files: Mapping[str, bytes], stats: Mapping[str, Json] | None = None) -> Compute:
    """A stage that writes ``files``."""

    def compute() -> StageResult:
        folder.mkdir(parents=True, exist_ok=True)
        outputs = []
        for name, data in files.items():
            path = folder / name
            path.write_bytes(data)
            outputs.append(OutputFile(name=name, path=path, media_type="text/plain"))
        return StageResult(files=tuple(outputs), stats={"rows_in": len(files)} if stats is None else stats)

    return compute


def forbidden() -> StageResult:
    """A stage that may not be computed."""
    raise AssertionError("computed although it was known what the action leads to")


def damage(store: Store, key: str, data: bytes) -> None:
    """Overwrites a key as a broken disk would."""
    store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}", Body=data)


def flip(store: Store, digest: str) -> None:
    """Flips one bit of an object; its size stays."""
    data = store.get_bytes(digest)
    damage(store, object_key(digest), bytes([data[0] ^ 1]) + data[1:])


def delete(store: Store, key: str) -> None:
    """Deletes a key."""
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}")


@contextmanager
def counted_writes(store: Store) -> Iterator[list[str]]:
    """The names of all requests but reads that the store's client makes meanwhile, as boto3's own events tell them."""
    found: list[str] = []

    def note(event_name: str, **_: object) -> None:
        operation = event_name.rsplit(".", 1)[1]
        if not operation.startswith(("Get", "Head", "List")):
            found.append(operation)

    store.client.meta.events.register("before-call.s3", note)
    try:
        yield found
    finally:
        store.client.meta.events.unregister("before-call.s3", note)
