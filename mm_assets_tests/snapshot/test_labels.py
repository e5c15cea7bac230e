"""What a sample says about its own label reaches the snapshot's table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.drops.create import create_drop, push_drop
from mm_assets.drops.labels import label_statements
from mm_assets.materialize import Workspace
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet


@pytest.mark.parametrize(
    ("metadata", "stated"),
    [
        ({"camera": "X100"}, {}),
        ({"label_confidence": 0.25}, {"label_confidence": 0.25}),
        ({"label_confidence": "0.5", "annotator_cohort": "crowd"}, {"label_confidence": 0.5, "label_cohort": "crowd"}),
        ({"label_confidence": 7}, {}),
        ({"label_confidence": True}, {}),
        ({"label_confidence": "high"}, {}),
        ({"guideline_version": 3, "adjudication_rule": None}, {"label_guideline": "3"}),
        ({"note": 'says "label_confidence" only'}, {}),
    ],
)
def test_statements_about_a_label_are_read_from_the_metadata(metadata: dict[str, object], stated: object) -> None:
    assert label_statements(json.dumps(metadata)) == stated


def test_statements_are_columns_of_the_snapshot(store: Store, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    rows = [
        {"id": "a", "text": "one", "label": "x", "label_confidence": 0.9, "annotator_cohort": "crowd"},
        {"id": "b", "text": "two", "label": "y"},
    ]
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    create_drop(folder, "texts", "d1")
    push_drop(store, folder)
    workspace = Workspace(replace(settings, num_shards=1), store)
    open_named_release(workspace, ReleaseRequest(release="r1", drops=(("texts", "d1"),), configuration="smoke"))
    made = workspace.run("snapshot", Partition(release="r1", shard="0000"), environment={})
    path = store.fetch(made.manifest.output("samples.parquet").digest, tmp_path)
    found = read_parquet(path, ["label_confidence", "label_cohort", "label_guideline"]).to_pylist()
    assert found == [
        {"label_confidence": 0.9, "label_cohort": "crowd", "label_guideline": None},
        {"label_confidence": None, "label_cohort": None, "label_guideline": None},
    ]
