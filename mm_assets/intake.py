"""A release for every new drop: which drops are new, what their release is called, and how it is opened.

A drop is done if some release pins it; the sensor's cursor does not decide.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.checks.yaml_files import read_yaml
from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.drops.create import find_complete_drops
from mm_assets.errors import MmError, ObjectCorruptError, ObjectMissingError, SettingsError, StoreError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.materialize import Workspace
from mm_assets.promotion.chain import read_production
from mm_assets.releases.spec import ReleaseSpec, list_releases, read_spec
from mm_assets.settings import Settings
from mm_assets.store.objects import Store

CONFIG_FILE = "new_drops.yaml"
MAX_NAME = 63

Drop = tuple[str, str]


class NewDropsConfig(BaseModel):
    """``mm.new_drops/2``: the configuration and the policy of releases that a sensor opens, and what they are for.

    Without a ``use`` they are for what the release in production is for, if there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.new_drops/2"] = Field(alias="schema")
    configuration: str
    policy: str
    use: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """Releases that were opened, and a sentence for every drop that could not be."""

    releases: tuple[str, ...]
    problems: tuple[str, ...]


def open_new_releases(workspace: Workspace) -> Opened:
    """Opens a release per new drop, on top of the release in production, if there is one.

    Raises:
        StoreError: the store was in the way; nothing is known about the drops.
        SettingsError: ``new_drops.yaml`` is unusable.
    """
    store = workspace.store
    config = read_config(workspace.settings)
    specs, problems = _read_specs(store)
    names = {spec.release for spec in specs}
    pinned = {(pin.source, pin.drop) for spec in specs for pin in spec.drops}
    production = read_production(store)
    releases: list[str] = []
    for drop in find_complete_drops(store):
        if drop in pinned:
            continue
        try:
            spec = open_named_release(
                workspace,
                ReleaseRequest(
                    release=release_name(drop, names),
                    drops=(drop,),
                    parent=production.release if production else None,
                    policy=config.policy,
                    configuration=config.configuration,
                    use=config.use,
                ),
            )
        except StoreError:
            raise
        except MmError as error:
            problems.append(f"drop {'/'.join(drop)}: was left out: {error}")
        else:
            releases.append(spec.release)
            names.add(spec.release)
    return Opened(releases=tuple(releases), problems=tuple(problems))


def release_name(drop: Drop, taken: set[str]) -> str:
    """``<source>-<drop>``; with a digest where that is too long or names a release of other drops."""
    name = "-".join(drop)
    if len(name) <= MAX_NAME and name not in taken:
        return name
    suffix = "-" + digest_bytes("/".join(drop).encode()).removeprefix("sha256:")[:8]
    return name[: MAX_NAME - len(suffix)] + suffix


def read_config(settings: Settings) -> NewDropsConfig:
    """The deployment's ``new_drops.yaml``, or the packaged one.

    Raises:
        SettingsError: it breaks its format.
    """
    path = settings.config_file(CONFIG_FILE)
    document, _ = read_yaml(path, SettingsError)
    try:
        return NewDropsConfig.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def _read_specs(store: Store) -> tuple[list[ReleaseSpec], list[str]]:
    """Every spec that can be read, and a sentence for every other."""
    specs: list[ReleaseSpec] = []
    problems: list[str] = []
    for release in list_releases(store):
        try:
            specs.append(read_spec(store, release))
        except (ObjectCorruptError, ObjectMissingError) as error:
            problems.append(f"release {release}: was left out: {error}")
    return specs, problems
