"""The table is light, complete, and its reasons are the same wherever a fault is found."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mm_assets
from mm_assets.drops.blobs import inspect_blob
from mm_assets.drops.fields import finish_sample
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.samples import Rejection
from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities.reasons import REASONS, BlobRejectedError, Refusal
from mm_assets.modalities.table import MODALITIES, NAMES, aspect, modality_modules

ROOT = Path(mm_assets.__file__).parent
ASPECTS = (
    "header", "decode", "tensor", "column", "signals", "tokens", "corruptions", "augment", "embedder", "bootstrap",
    "descriptor",
)  # fmt: skip


def test_the_table_loads_no_decoder_and_no_torch() -> None:
    code = "import mm_assets.modalities.table, sys; sys.exit(bool({'torch', 'PIL', 'soundfile'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, check=False).returncode == 0


def test_every_aspect_of_every_modality_is_a_module_with_a_name_for_digests() -> None:
    names = modality_modules(*ASPECTS)
    assert len(names) == len(set(names)) == len(NAMES) * len(ASPECTS)
    assert all((ROOT.parent / name.replace(".", "/")).with_suffix(".py").is_file() for name in names)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_its_aspects_say(name: str) -> None:
    row = MODALITIES[name]
    assert set(aspect(name, "corruptions").CORRUPTIONS) == {*row.corruptions, *row.further_corruptions}
    columns = {column for column, _ in aspect(name, "signals").COLUMNS}
    assert row.digest_column in columns


@pytest.mark.parametrize(
    ("modality", "data", "reason"),
    [
        ("text", b"\xff\xfe", "text_not_utf8"),
        ("image", b"GIF89a" + bytes(50), "unsupported_format"),
        ("image", b"\x89PNG\r\n\x1a\n" + bytes(50), "bad_header"),
        ("image", b"\xff\xd8\xff\xe0", "bad_header"),
        ("audio", b"nothing", "unsupported_format"),
        ("audio", b"fLaC" + bytes(60), "bad_header"),
        ("audio", b"RIFF\x24\0\0\0WAVEdata\xff\xff\xff\xff", "header_lies"),
    ],
)
def test_one_fault_has_one_word_in_the_snapshot_and_in_features(modality: str, data: bytes, reason: str) -> None:
    found = inspect_blob(modality, data, SnapshotConfig())
    assert isinstance(found, Refusal)
    with pytest.raises(BlobRejectedError) as caught:
        aspect(modality, "decode").decode(data, FeaturesConfig())
    assert (found.reason, found.detail) == (caught.value.reason, caught.value.detail)
    assert found.reason == reason


def test_an_unlisted_reason_is_an_error() -> None:
    with pytest.raises(ValueError, match="list it in modalities/reasons.py"):
        Refusal("odd", "detail")


def test_every_reason_written_in_the_package_is_listed() -> None:
    written: set[str] = set()
    for path in [*ROOT.glob("drops/*.py"), *ROOT.glob("modalities/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                place = {"Refusal": 0, "reject": 1, "_rejection": 3}.get(name)
                values = [node.args[place]] if place is not None and len(node.args) > place else []
                values += [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
                written |= {value.value for value in values if isinstance(value, ast.Constant)}
    assert written <= set(REASONS)
    assert len(written) > len(REASONS) // 2


def test_a_dead_letter_quotes_no_exception_of_ours() -> None:
    made = finish_sample("a", "index.jsonl", {}, {"place": "\ud800"}, SnapshotConfig())
    assert isinstance(made, Rejection)
    assert made.detail == "metadata cannot be written as JSON: a name or value is not Unicode text"
