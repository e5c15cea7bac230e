"""What a compute function is given: the objects that its action names, its parameters, and a folder to write to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mm_assets.errors import ObjectMissingError
from mm_assets.identity.canonical import Json
from mm_assets.store.action import Action
from mm_assets.store.manifest import Input
from mm_assets.store.objects import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One computation. All that may decide a byte is in ``action``; ``placement`` may not.

    Attributes:
        store: Reads and keeps objects.
        action: Code, parameters, environment and inputs.
        workdir: An existing folder for files; it goes when the computation ends.
        placement: Where and how it runs: number of processes, rows per forward pass, steps between two log lines.
    """

    store: Store
    action: Action
    workdir: Path
    placement: Mapping[str, Json] = field(default_factory=dict[str, Json])

    @property
    def params(self) -> Mapping[str, Json]:
        """The action's parameters."""
        return self.action.params

    @property
    def environment(self) -> Mapping[str, Json]:
        """The action's environment."""
        return self.action.environment

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The action's inputs."""
        return self.action.inputs

    def inputs_of(self, asset: str, role: str | None = None) -> list[Input]:
        """The inputs of that asset in that role, in order."""
        return [entry for entry in self.inputs if (entry.asset, entry.role) == (asset, role)]

    def digest(self, asset: str, name: str, *, role: str | None = None) -> str:
        """Digest of the object ``name`` of the only input of that asset and role.

        Raises:
            ObjectMissingError: the action does not name exactly one such input, or does not read that object.
        """
        found = self.inputs_of(asset, role)
        if len(found) != 1:
            raise ObjectMissingError(
                f"{self.action.asset}: expected one input {role or asset}, got {len(found)}. Correct its inputs."
            )
        return found[0].digest(name)

    def read(self, asset: str, name: str, *, role: str | None = None) -> bytes:
        """The object's bytes, verified."""
        return self.store.get_bytes(self.digest(asset, name, role=role))

    def fetch(self, asset: str, name: str, *, role: str | None = None) -> Path:
        """The object as a local file, verified, outside of the folder's own names."""
        return self.store.fetch(self.digest(asset, name, role=role), self.workdir / "inputs")
