"""The demo in a store that an older version has filled."""

import io

import pytest
from rich.console import Console

from mm_assets.demo.job import run_demo
from mm_assets.errors import UsageError
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets_tests.by_hand import open_by_hand


@pytest.mark.integration
def test_a_release_of_the_name_with_other_data_is_one_sentence_and_nothing_is_pushed(
    store: Store, moto_settings: Settings
) -> None:
    open_by_hand(store, "demo")
    said = (
        "release demo: is open with other data than today's demo: expected emoji-films/2026-11, emoji/2026-11, "
        "got zoo/d1. Run `mm demo --release demo-2`, which opens another one beside it."
    )
    with pytest.raises(UsageError) as raised:
        run_demo(Console(file=io.StringIO()), moto_settings, release="demo")
    assert str(raised.value) == said
    assert not list(store.list_keys("raw/"))
