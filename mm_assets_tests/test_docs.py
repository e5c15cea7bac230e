"""The pages that a newcomer works by say what the tables of the code say."""

import ast
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

import mm_assets
from mm_assets.cli import build_parser
from mm_assets.errors import UsageError
from mm_assets.modalities.reasons import REASONS
from mm_assets.modalities.table import Modality
from mm_assets.pipeline import ASSETS, Asset

ROOT = Path(mm_assets.__file__).parents[1]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Gives a value without arguments of its own, or is explained by another row.
DERIVED = {"upstream"}


def section(title: str) -> str:
    return ARCHITECTURE.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_glossary_lists_every_reason_with_its_meaning() -> None:
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").split("## Reasons of dead letters")[1]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)) == REASONS


@pytest.mark.parametrize("asset", list(ASSETS.values()), ids=list(ASSETS))
def test_the_architecture_says_what_each_asset_reads(asset: Asset) -> None:
    [reads] = re.findall(rf"^\| {asset.stage} \| `{asset.name}` \| (.+) \| .+ \|$", ARCHITECTURE, re.MULTILINE)
    told = {
        upstream: tuple(re.findall(r"`([\w.]+)`", names))
        for upstream, names in (part.split(": ", 1) for part in reads.split("; ") if ": " in part)
    }
    assert told == asset.reads


def test_the_architecture_explains_every_aspect() -> None:
    table = ast.get_docstring(ast.parse((ROOT / "mm_assets/modalities/table.py").read_text(encoding="utf-8"))) or ""
    aspects = re.findall(r"^- ``(\w+)``", table, re.MULTILINE)
    assert len(aspects) > 10
    rows = re.findall(r"^\| `(\w+)` \| ", section("Adding a modality"), re.MULTILINE)
    assert set(aspects) <= set(rows)


@pytest.mark.parametrize(("kind", "title"), [(Modality, "Adding a modality"), (Asset, "Adding an asset")])
def test_the_architecture_explains_every_field_of_a_row(kind: type, title: str) -> None:
    told = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.+?) \| ", section(title), re.MULTILINE))))
    assert {field.name for field in fields(kind)} - DERIVED <= told


def test_the_folders_of_the_architecture_are_the_layers_of_the_imports() -> None:
    names = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.+?) \| ", section("Folders"), re.MULTILINE)))
    package = ROOT / "mm_assets"
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert sorted(names) == sorted(modules - {"__init__"})


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_in_the_pages_are_commands(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"`mm ([a-z][^`|\n]*)`", text) + re.findall(r"^(?: {4})?mm ([a-z][^#\n]*)", text, re.MULTILINE)
    wrong: list[str] = []
    for line in lines:
        words = shlex.split(line.replace("[", "").replace("]", ""))
        families = [choice for action in build_parser()._actions if action.choices for choice in action.choices]
        if words[0] not in families:
            wrong.append(line)
        elif any(word.startswith("--") for word in words):
            try:
                build_parser().parse_args(words)
            except UsageError as error:
                # A sentence may leave out what a command requires, but no option may be unknown.
                wrong += [line] if "unrecognized" in str(error) else []
    assert wrong == []
