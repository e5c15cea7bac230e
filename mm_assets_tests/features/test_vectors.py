"""The query of the README, on embeddings as they lie in the store."""

import re
import shutil
from pathlib import Path

import duckdb

import mm_assets

README = Path(mm_assets.__file__).parents[1] / "README.md"
WREN = "birdclub/2026-11/wren-1"


def test_the_nearest_pictures_are_found_by_the_query_of_the_readme(
    embed, store, make_blocks, to_picture, tmp_path, monkeypatch
):
    samples = {f"birdclub/2026-11/robin-{number}": {"png": to_picture(make_blocks(number))} for number in range(2, 9)}
    samples[WREN] = {"png": to_picture(make_blocks(1))}
    samples["birdclub/2026-11/wren-2"] = {"jpg": to_picture(make_blocks(1), "JPEG", quality=80)}
    samples["birdclub/2026-11/song"] = {"txt": b"no picture"}
    _, embeddings = embed(samples)
    path = store.fetch(embeddings.manifest.output("embeddings.parquet").digest, tmp_path)
    shutil.copy(path, tmp_path / "embeddings.parquet")
    monkeypatch.chdir(tmp_path)
    (query,) = re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    with duckdb.connect() as database:
        found = database.execute(query).fetchall()
    assert [name for name, _ in found][0] == "birdclub/2026-11/wren-2"
    assert len(found) == 5
    distances = [distance for _, distance in found]
    assert distances == sorted(distances)
    assert distances[0] < 0.05 < 0.2 < distances[1]
