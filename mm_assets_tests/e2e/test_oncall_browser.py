"""On call, with nothing but a browser: a shard turns red by the name of its object, is repaired, and turns green.

With ``MM_PICTURES`` set to a folder, the pictures that the README shows are written there.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.demo.data import DROP, SOURCE, USE, build_demo_drop
from mm_assets.drops.create import push_drop
from mm_assets.materialize import Workspace
from mm_assets.settings import read_settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store, open_store
from mm_assets.store.refs import read_ref

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]

RELEASE = "emoji-1"
#: Object 3 of the drop, and therefore in shard 1 of 2.
DAMAGED = f"raw/{SOURCE}/{DROP}/emoji-0003.tar"
DAMAGED_SHARD = "0001"
PHASE_TIMEOUT_S = 180


@pytest.fixture
def damaged_place(make_workplace: Callable[[str], Any]) -> tuple[Any, dict[str, str], Path]:
    """A workplace with an open release one of whose objects is damaged; its environment and the drop's folder."""
    place = make_workplace("oncall")
    environment = place.environment | {"MM_NUM_SHARDS": "2", "MM_WORLD_SIZE": "1"}
    settings = read_settings(environment)
    store = open_store(settings)
    folder = build_demo_drop(place.folder / "drop", num_emoji=40)
    push_drop(store, folder)
    request = ReleaseRequest(release=RELEASE, drops=((SOURCE, DROP),), configuration="smoke", num_shards=2, use=USE)
    open_named_release(Workspace(settings, store), request)
    current = store.read_key(DAMAGED)
    assert current is not None
    assert store.replace_key(DAMAGED, current.data[:-512] + b"\1" * 512, current.etag)
    return place, environment, folder


@pytest.fixture
def ui(damaged_place: tuple[Any, dict[str, str], Path]) -> Iterator[str]:
    """The address of ``mm ui`` in that workplace, sensors and automation included."""
    place, environment, _ = damaged_place
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (place.folder / "ui.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mm_assets.cli", "ui", "--port", str(port)],
            env=environment,
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait(lambda: _answers(f"http://127.0.0.1:{port}/server_info"), "the UI")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(60)
        finally:
            process.kill()
    assert status == 0
    _wait(lambda: not _workers(place.folder / ".mm"), "the end of every process")


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a headless browser that talks to nobody but the UI."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_page(viewport={"width": 1800, "height": 760})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def test_a_damaged_shard_is_repaired_with_a_few_clicks(
    damaged_place: tuple[Any, dict[str, str], Path], ui: str, page: Page
) -> None:
    place, _, folder = damaged_place
    store: Store = place.store()

    failed_run = _open_check(page, ui, "Failed (1)", "Passed (1)")
    expect(page.get_by_text(DAMAGED)).to_be_visible()
    expect(page.get_by_text("docs/runbooks/damaged-object.md")).to_be_visible()
    _picture(page, "oncall-failed.png")
    assert read_ref(store, "snapshot", Partition(release=RELEASE, shard=DAMAGED_SHARD)).ref is None
    assert read_ref(store, "dataset_release", Partition(release=RELEASE)).ref is None

    push_drop(store, folder)
    page.goto(ui + failed_run)
    _reexecute_from_failure(page)
    page.wait_for_url(lambda url: "/runs/" in url and failed_run not in url)

    assert _open_check(page, ui, "Failed (0)", "Passed (2)") != failed_run
    expect(page.get_by_text("rules passed.")).to_be_visible()
    _picture(page, "oncall-repaired.png")
    # Automation does the rest.
    _wait(lambda: read_ref(store, "registration", Partition(release=RELEASE)).ref, "the end of the release")


def _open_check(page: Page, ui: str, *counts: str) -> str:
    """Opens the damaged shard's check of ``snapshot`` once the counts are shown; returns the path of its run."""

    def look() -> bool:
        page.goto(f"{ui}/assets/snapshot?view=checks")
        # The first tab of this name belongs to the asset.
        page.get_by_role("tab", name="Partitions").nth(1).click()
        try:
            for count in counts:
                expect(page.get_by_text(count, exact=True)).to_be_visible(timeout=4000)
        except AssertionError:
            return False
        return True

    _wait(look, f"a check with {counts}")
    page.locator(f":text-is('{DAMAGED_SHARD}'):visible").first.click()
    expect(page.locator(f":text-is('{RELEASE}|{DAMAGED_SHARD}'):visible")).to_be_visible()
    run = page.locator("a[href*='/runs/']:visible").first.get_attribute("href")
    assert run is not None
    return run.partition("?")[0]


def _reexecute_from_failure(page: Page) -> None:
    page.get_by_role("button", name="Re-execute").locator("xpath=..").get_by_role("button").last.click()
    page.get_by_role("menuitem", name="From failure").click()


def _picture(page: Page, name: str) -> None:
    folder = os.environ.get("MM_PICTURES")
    if folder:
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)
        page.screenshot(path=Path(folder) / name)


def _wait(probe: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PHASE_TIMEOUT_S
    while time.monotonic() < deadline:
        if probe():
            return
        time.sleep(1)
    pytest.fail(f"{what} did not come within {PHASE_TIMEOUT_S} s")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except OSError:
        return False


def _workers(home: Path) -> list[int]:
    """Processes of the deployment: its ``MM_HOME`` is in their environment. The store's server is none of them."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"MM_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
