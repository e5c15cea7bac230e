"""What starts automatically: a release for every new drop, a partition for every release, an alert for a failed run.

All are idempotent; their cursors are hints for people.
"""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence

import dagster as dg

from mm_assets.defs.metadata import RUNBOOK, failure_sentence
from mm_assets.defs.partitions import release_partitions, require_fits
from mm_assets.errors import MmError, StoreError
from mm_assets.intake import open_new_releases
from mm_assets.materialize import Workspace
from mm_assets.releases.spec import list_releases, read_spec
from mm_assets.settings import Settings
from mm_assets.store.objects import Store, open_store

logger = logging.getLogger(__name__)

DROP_INTERVAL_S = 30
ALERTED_TAG = "mm/alerted"
ALERT_TIMEOUT_S = 10


def drop_sensor(settings: Settings) -> dg.SensorDefinition:
    """Opens a release for every complete drop that no release pins."""

    @dg.sensor(
        name="new_drops",
        minimum_interval_seconds=DROP_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Opens a release for every drop.json under raw/ that no release pins yet, and adds its partition.",
    )
    def new_drops(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        opened = open_new_releases(Workspace(settings))
        return _answer(context, opened.releases, opened.problems, idle="Every complete drop is part of a release.")

    return new_drops


def release_sensor(settings: Settings) -> dg.SensorDefinition:
    """Adds a partition for every open release, however it was opened."""

    @dg.sensor(
        name="open_releases",
        minimum_interval_seconds=DROP_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Adds a partition for every release that was opened with `mm release open`.",
    )
    def open_releases(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        store = open_store(settings)
        known = set(context.instance.get_dynamic_partitions(str(release_partitions.name)))
        missing = [release for release in list_releases(store) if release not in known]
        fitting, problems = _fitting(store, settings, missing)
        return _answer(context, fitting, problems, idle="Every open release has its partition.")

    return open_releases


def alert_sensor(settings: Settings) -> dg.SensorDefinition:
    """Tells people about a failed run, once."""

    @dg.run_failure_sensor(
        name="failed_runs",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Logs every failed run with its runbook, and posts it to MM_ALERT_WEBHOOK where that is set.",
    )
    def failed_runs(context: dg.RunFailureSensorContext) -> None:
        run = context.instance.get_run_by_id(context.dagster_run.run_id) or context.dagster_run
        if ALERTED_TAG in run.tags:
            return
        message = alert_message(context)
        logger.error("%s", message["text"])
        if settings.alert_webhook and not post_alert(settings.alert_webhook, message):
            return
        context.instance.add_run_tags(run.run_id, {ALERTED_TAG: "true"})

    return failed_runs


def alert_message(context: dg.RunFailureSensorContext) -> dict[str, str]:
    """What is posted: the run, its partition, the first step's sentence and where to read on."""
    run = context.dagster_run
    sentences = [failure_sentence(event) for event in context.get_step_failure_events()]
    partition = run.tags.get("dagster/partition", "no partition")
    sentence = sentences[0] if sentences else context.failure_event.message or "no message"
    return {
        "text": f"{run.job_name} {partition}: run {run.run_id} failed: {sentence} Runbook: {RUNBOOK}",
        "run_id": run.run_id,
        "partition": partition,
        "runbook": RUNBOOK,
    }


def post_alert(webhook: str, message: dict[str, str]) -> bool:
    """Posts the alert as JSON; False, and a line in the log, if it was not delivered."""
    request = urllib.request.Request(
        webhook, data=json.dumps(message).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=ALERT_TIMEOUT_S):
            return True
    except (urllib.error.URLError, TimeoutError) as error:
        logger.warning("alert webhook: did not take the alert: %s. Check MM_ALERT_WEBHOOK.", error)
        return False


def _fitting(store: Store, settings: Settings, releases: list[str]) -> tuple[list[str], list[str]]:
    fitting: list[str] = []
    problems: list[str] = []
    for release in releases:
        try:
            require_fits(read_spec(store, release), settings)
        except StoreError:
            raise
        except MmError as error:
            problems.append(str(error))
        else:
            fitting.append(release)
    return fitting, problems


def _answer(
    context: dg.SensorEvaluationContext, releases: Sequence[str], problems: Sequence[str], *, idle: str
) -> dg.SensorResult:
    for problem in problems:
        context.log.error(problem)
    reasons = [*(f"Added release {release}." for release in releases), *problems] or [idle]
    return dg.SensorResult(
        skip_reason=" ".join(reasons),
        dynamic_partitions_requests=[release_partitions.build_add_request(list(releases))] if releases else [],
        cursor=releases[-1] if releases else context.cursor,
    )
