"""Every command of the README is run, on a folder of real pictures, sounds and texts."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mm_assets.demo.catalog import LANGUAGES, choose, read_catalog
from mm_assets.demo.speech import Utterance, speak
from mm_assets.settings import PACKAGED_CONFIG
from mm_assets_tests.features.tiny_models import save_clip

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUM_EMOJI = 40


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(README) if name == language]


def block_with(command: str) -> str:
    """The block of commands that has this one in it."""
    (block,) = [block for block in blocks("bash") if command in block]
    return block


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]


def write_folder(folder: Path) -> int:
    """The README's two rows and as many more as make a class distinguishable; returns the number of rows."""
    emojis = [emoji for emoji in choose(read_catalog(), NUM_EMOJI, seed=1) if emoji.picture and emoji.category]
    rows = [json.loads(line) for line in blocks("json")[0].splitlines()]
    rows += [
        {
            "id": f"{emoji.codepoints}-{language}",
            "text": emoji.names[language],
            "image": f"photos/{emoji.codepoints}.{'jpg' if number % 2 else 'png'}",
            "audio": f"songs/{emoji.codepoints}-{language}.wav",
            "label": emoji.category,
            "language": language,
            "group": emoji.codepoints,
            "number": number,
        }
        for number, emoji in enumerate(emojis)
        for language in LANGUAGES
    ]
    pictures = {row["image"]: emojis[number % len(emojis)].picture for number, row in enumerate(rows)}
    for name, picture in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert picture is not None
        if path.suffix == ".jpg":
            Image.open(picture).convert("RGBA").convert("RGB").save(path, quality=90)
        else:
            shutil.copyfile(picture, path)
    spoken = [row for row in rows if "audio" in row]
    (folder / "songs").mkdir()
    wavs = speak([Utterance(voice=row["language"], text=row["text"]) for row in spoken])
    for row, wav in zip(spoken, wavs, strict=True):
        (folder / row["audio"]).write_bytes(wav)
    # A picture that was cut off behind its header costs one sample, whose row is still counted.
    whole = (folder / "photos/robin.png").read_bytes()
    (folder / "photos/torn.png").write_bytes(whole[: len(whole) * 3 // 4])
    rows.append({"id": "torn-1", "text": "Torn in two.", "image": "photos/torn.png", "label": "torn"})
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(rows)


def test_the_walk_through_with_ones_own_data(make_workplace: Callable[[str], Any]) -> None:
    place = make_workplace("birds")
    num_rows = write_folder(place.folder / "birds")
    walk = commands(block_with("mm drop create birds "))
    assert [line[:2] for line in walk][:4] == [["mm", "drop"]] * 3 + [["mm", "release"]]
    results: dict[str, dict[str, Any]] = {}
    for line in walk:
        results[" ".join(line[1:3])] = place.result(*line)
    assert results["drop push"]["num_samples"] == num_rows
    assert results["drop push"]["problems"] == []
    assert results["run --release"]["failed"] == []
    assert {stage["state"] for stage in results["release show"]["stages"].values()} == {"passed"}
    assert results["explain --release"]["signals"]["image_width"] == 72
    assert results["trace --sample"]["releases"] == ["birds-1"]
    assert results["trace --model"]["drops"] == ["birdclub/2026-11"]
    assert results["verify"]["corrupt"] == []
    assert (results["replay birds-1"]["verdict"], results["replay birds-1"]["environment_match"]) == ("BITWISE", True)
    experiment = [place.result(*line) for line in commands(block_with("--data-of birds-1 --policy private"))]
    assert [result["release"] for result in experiment[:2]] == ["birds-2", "birds-2"]
    assert experiment[1]["failed"] == []
    assert "policy.name" in {change["name"] for change in experiment[2]["settings"]}
    assert (place.folder / "diff.html").read_text("utf-8").count("<svg") == 2
    shutil.copyfile(PACKAGED_CONFIG / "promotion.yaml", place.folder / "promotion.yaml")
    ruled = [place.result(*line) for line in commands(block_with("mm rules set"))]
    assert ruled[0]["replaced"]["reason"] == "fewer languages than usual"
    assert (ruled[1]["computed"], ruled[1]["failed"]) == (0, [])
    clean = (PACKAGED_CONFIG / "policies" / "clean.yaml").read_text("utf-8")
    (place.folder / "strict.yaml").write_text(clean.replace("name: clean", "name: strict"), "utf-8")
    tried, added, strict = [place.result(*line) for line in commands(block_with("mm policy try"))]
    assert tried["release"] == "birds-1"
    assert (added["name"], strict["release"]) == ("strict", "birds-3")
    save_clip(place.folder / "clip-vit-base-patch32", dim=512)
    encoder, embedded = [place.result(*line) for line in commands(block_with("mm encoder add"))]
    assert (encoder["name"], embedded["release"]) == ("clip-b32", "birds-clip")
    torn = place.result("mm", "explain", "--release", "birds-1", "--sample", "torn-1")
    assert torn["selected"] is False
    assert torn["dead_letter"]["stage"] == "features"


def test_the_index_of_the_readme_passes_the_check(make_workplace: Callable[[str], Any]) -> None:
    place = make_workplace("index")
    folder = place.folder / "birds"
    write_folder(folder)
    created = place.result("mm", "drop", "create", "birds", "--source", "birdclub", "--drop", "2026-11")
    assert (created["source"], created["drop"], created["problems"]) == ("birdclub", "2026-11", [])
    before = (folder / "drop.json").read_bytes()
    place.result("mm", "drop", "create", "birds", "--source", "birdclub", "--drop", "2026-11")
    assert (folder / "drop.json").read_bytes() == before


def test_a_faulty_drop_is_explained_by_file_and_line(make_workplace: Callable[[str], Any]) -> None:
    place = make_workplace("faulty")
    folder = place.folder / "birds"
    folder.mkdir()
    rows = ['{"id": "a", "text": "one"}', '{"id": "a", "text": "two"}', '{"id": "b", "image": "gone.png"}']
    (folder / "index.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    place.result("mm", "drop", "create", "birds", "--source", "s", "--drop", "d")
    answer = place.run("mm", "drop", "check", "birds", "--json")
    assert answer.returncode == 1
    problems = json.loads(answer.stdout)["problems"]
    assert [(problem["file"], problem["line"]) for problem in problems] == [("index.jsonl", 2), ("index.jsonl", 3)]
    assert "index.jsonl:2" in answer.stderr


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = [command[1] for command in commands(blocks("bash")[0])]
    assert targets == ["demo", "test", "ui"]
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in targets:
        assert f"make {target} " in listed
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_every_local_link_of_the_readme_and_the_runbooks_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.slow
def test_a_fresh_clone_runs_the_demo_with_one_command(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    for _ in range(2):
        subprocess.run(["make", "demo"], cwd=tmp_path / "clone", check=True, stdin=subprocess.DEVNULL)
    subprocess.run(["make", "clean"], cwd=tmp_path / "clone", check=True)
    assert not (tmp_path / "clone/.mm").exists()
