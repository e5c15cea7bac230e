"""Trains what a training spec says, apart from any release: the same spec, code and environment, the same model."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mm_assets.errors import SpecError, UsageError
from mm_assets.identity.canonical import Json, digest_bytes, digest_file
from mm_assets.launchers.environment import stage_environment
from mm_assets.lineage.records import flat
from mm_assets.materialize import code_of
from mm_assets.pipeline import asset_named
from mm_assets.scratch import scratch_folder
from mm_assets.settings import Settings, clear_math_modes
from mm_assets.store.action import Action, find_action
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, NamedDigest
from mm_assets.store.objects import Store
from mm_assets.training.spec_file import TrainingSpec, parse_training_spec

MODEL = "model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a spec led to.

    Attributes:
        fingerprint: Of the action: the spec under this version's code.
        outputs: Digests of the model's files by name.
        expected: Those of the model that the store knows for the same action; empty if there is none.
    """

    fingerprint: str
    outputs: Mapping[str, str]
    expected: Mapping[str, str]

    @property
    def is_reproduced(self) -> bool | None:
        """Whether the same files came out; None if the store knows no model of this action."""
        return self.outputs == self.expected if self.expected else None


def train_spec(store: Store, settings: Settings, path: Path, output: Path) -> Trained:
    """Trains what ``path`` says and leaves the model's files in ``output``; no ref of the store moves.

    Raises:
        UsageError: the file is missing, or the folder holds something.
        SpecError: the spec is unusable, or this is not the environment that it names.
        ObjectMissingError: the store lacks an object that it names. StageError: the training failed.
        NonDeterminismError: other bits came out than before.
    """
    if not path.is_file():
        raise UsageError(f"{path}: does not exist: expected the spec.json of a model. Name another file.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output}: holds something: expected a new or empty folder. Name another one.")
    data = path.read_bytes()
    spec = parse_training_spec(data, str(path))
    _require_environment(path, spec.environment, stage_environment())
    action = Action(
        asset=MODEL,
        code=code_of(asset_named(MODEL)),
        params={"training": spec.training, "plan": spec.plan, "seed": spec.seed},
        environment=spec.environment,
        inputs=_inputs(spec, digest_bytes(data)),
    )
    known = find_action(store, action)
    clear_math_modes()
    # Imported here: only a process that computes loads torch.
    from mm_assets.training.train import compute_model

    with scratch_folder("train") as folder:
        made = compute_model(Job(store=store, action=action, workdir=folder, placement=settings.given()))
        output.mkdir(parents=True, exist_ok=True)
        for file in made.files:
            shutil.copyfile(file.path, output / file.name)
        outputs = {file.name: digest_file(file.path) for file in made.files}
    outputs |= {item.name: item.digest for item in made.stored}
    expected = {item.name: item.digest for item in known.outputs} if known else {}
    return Trained(fingerprint=action.fingerprint, outputs=outputs, expected=expected)


def _require_environment(path: Path, expected: Mapping[str, Json], found: Mapping[str, Json]) -> None:
    then, now = flat(expected), flat(found)
    other = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if other:
        facts = ", ".join(f"{name}: expected {then.get(name)}, got {now.get(name)}" for name in other)
        raise SpecError(
            f"{path}: was trained in another environment: {facts}. Train it where that holds, or correct the key "
            "environment and remove the key fingerprint."
        )


def _inputs(spec: TrainingSpec, named_by: str) -> tuple[Input, ...]:
    """The objects that the spec names, by asset in its order; what names them is the spec itself."""
    by_asset: dict[str, list[NamedDigest]] = {}
    for entry in spec.inputs:
        asset, _, name = entry.role.partition("/")
        by_asset.setdefault(asset, []).append(NamedDigest(name=name, digest=entry.digest))
    return tuple(
        Input(asset=asset, partition={}, manifest=named_by, outputs=outputs) for asset, outputs in by_asset.items()
    )
