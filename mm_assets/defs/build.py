"""Puts the definitions together. Loading them reads source files and the environment, never the store."""

import warnings

import dagster as dg

from mm_assets.defs.assets import asset_definition
from mm_assets.defs.automation import automation_sensor
from mm_assets.defs.checks import check_definition
from mm_assets.defs.janitor import janitor_sensors
from mm_assets.defs.jobs import jobs
from mm_assets.defs.sensors import alert_sensor, drop_sensor, release_sensor
from mm_assets.launchers.process import StageLauncher
from mm_assets.materialize import Workspace
from mm_assets.pipeline import ASSETS
from mm_assets.settings import Settings, read_settings


def build_definitions(settings: Settings | None = None) -> dg.Definitions:
    """The whole code location.

    Args:
        settings: Those of the environment unless given.
    """
    with warnings.catch_warnings():
        # Dagster is pinned: what it calls beta or preview here cannot change unnoticed.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return _definitions(settings or read_settings())


def _definitions(settings: Settings) -> dg.Definitions:
    workspace = Workspace(settings)
    return dg.Definitions(
        assets=[asset_definition(asset, workspace) for asset in ASSETS.values()],
        asset_checks=[check_definition(asset, settings) for asset in ASSETS.values()],
        jobs=jobs(),
        sensors=[
            automation_sensor(),
            drop_sensor(settings),
            release_sensor(settings),
            alert_sensor(settings),
            *janitor_sensors(settings),
        ],
        resources={"workspace": workspace, "launcher": StageLauncher(settings)},
        # One run is one process (one pod on Kubernetes): its steps share the store's client and the caches.
        executor=dg.in_process_executor,
    )
