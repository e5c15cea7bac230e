"""The hostile corpus: files made by code, and what the readers say about each.

``expected.txt`` is the reviewed table of what they have to say. ``python -m mm_assets_tests.hostile.corpus --write``
writes what they say now; read the difference before you commit it.
"""

import functools
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from mm_assets.drops.check import DropReport, Problem, check_drop
from mm_assets.drops.create import create_drop
from mm_assets.drops.source import source_template
from mm_assets.errors import MmError
from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities.reasons import BlobRejectedError
from mm_assets.modalities.table import aspect
from mm_assets.release.policies import parse_policy
from mm_assets_tests.drops.raw_data import make_folder, png, tar_bytes
from mm_assets_tests.hostile import archives, indexes, pictures, records, sounds, videos

EXPECTED = Path(__file__).parent / "expected.txt"
OK = "ok"
UNUSABLE = "unusable: "
MAX_SAID_CHARS = 130
REASON = re.compile(r"\((\w+)\)$")


@functools.cache
def blobs() -> dict[str, dict[str, bytes]]:
    """Files that are one member of a sample, by kind; a description stands beside a text."""
    return {
        "image": pictures.pictures(),
        "audio": sounds.sounds(),
        "video": videos.videos(),
        "text": sounds.texts(),
        "description": archives.descriptions(),
    }


def blob_tar(kind: str, files: Mapping[str, bytes]) -> bytes:
    """One tar with a sample per file; the number keeps files apart that differ by their extension alone."""
    members: list[tuple[str, bytes]] = []
    for number, (name, data) in enumerate(files.items()):
        members.append((f"{number:03d}_{name}", data))
        if kind == "description":
            members.append((f"{number:03d}_{name.split('.')[0]}.txt", b"beside it"))
    return tar_bytes(members)


@functools.cache
def files() -> dict[str, bytes]:
    """Every file of the corpus, by ``kind/name``."""
    whole = {
        "tar": archives.archives(),
        "index": indexes.indexes(),
        "drop": records.drops(),
        "source": records.sources(),
        "policy": records.policies(),
    }
    return {f"{kind}/{name}": data for kind, found in (blobs() | whole).items() for name, data in found.items()}


def outcomes(folder: Path) -> dict[str, str]:
    """What creating and checking a drop, and decoding, say about each file; ``folder`` is empty."""
    found: dict[str, str] = {}
    for kind, of_kind in blobs().items():
        found |= {f"{kind}/{name}": said for name, said in _blob_outcomes(folder / kind, kind, of_kind).items()}
    for kind, make in (("tar", _tar), ("index", _index), ("drop", _drop), ("source", _source), ("policy", _policy)):
        prefix = f"{kind}/"
        for name, data in files().items():
            if name.startswith(prefix):
                short = name.removeprefix(prefix)
                found[name] = _said(make, folder / kind / short, short, data)
    return found


def index_folder(folder: Path, name: str, data: bytes) -> Path:
    """A folder with one index of the corpus and the picture that good rows name."""
    return make_folder(folder, {f"index{Path(name).suffix}": data, "a.png": png()})


def _blob_outcomes(folder: Path, kind: str, of_kind: Mapping[str, bytes]) -> dict[str, str]:
    make_folder(folder, {"a.tar": blob_tar(kind, of_kind)})
    create_drop(folder, "s", "d")
    report = check_drop(folder)
    by_number = {_number_of(problem): _reason(problem) for problem in report.problems}
    assert report.num_samples == len(of_kind) - len(by_number), report.problems
    found: dict[str, str] = {}
    for number, (name, data) in enumerate(of_kind.items()):
        reason = by_number.get(f"{number:03d}")
        found[name] = reason or (OK if kind == "description" else _decoded(kind, data))
    return found


def _number_of(problem: Problem) -> str:
    """The number in front of the member's name, or in the sentence where a sample is refused as a whole."""
    return (problem.member or problem.message.removeprefix("sample "))[:3]


def _decoded(kind: str, data: bytes) -> str:
    try:
        aspect(kind, "decode").decode(data, FeaturesConfig())
    except BlobRejectedError as error:
        return f"features: {error.reason}"
    return OK


def _said(make: Callable[[Path, str, bytes], str], folder: Path, name: str, data: bytes) -> str:
    try:
        said = make(folder, name, data)
    except MmError as error:
        said = f"{UNUSABLE}{error}"
    return said.replace(f"{folder}/", "").replace(str(folder), "FOLDER")[:MAX_SAID_CHARS].rstrip()


def _tar(folder: Path, name: str, data: bytes) -> str:
    suffix = "".join(re.findall(r"\.(?:tar|tar\.gz|tgz)$", name))
    make_folder(folder, {f"a{suffix}": data})
    create_drop(folder, "s", "d")
    return _reported(check_drop(folder))


def _index(folder: Path, name: str, data: bytes) -> str:
    create_drop(index_folder(folder, name, data), "s", "d")
    return _reported(check_drop(folder))


def _drop(folder: Path, name: str, data: bytes) -> str:
    del name
    make_folder(folder, {"a.tar": records.TAR, "drop.json": data, "source.yaml": source_template("s")})
    return _reported(check_drop(folder))


def _source(folder: Path, name: str, data: bytes) -> str:
    del name
    make_folder(folder, {"a.tar": records.TAR, "source.yaml": data})
    create_drop(folder, "s", "d")
    return _reported(check_drop(folder))


def _policy(folder: Path, name: str, data: bytes) -> str:
    del folder
    parse_policy(data, name)
    return OK


def _reported(report: DropReport) -> str:
    fatal = [problem for problem in report.problems if problem.is_fatal]
    if fatal:
        return f"{UNUSABLE}{fatal[0]}"
    reasons = ", ".join(_reason(problem) for problem in report.problems)
    return f"{report.num_samples} samples{': ' if reasons else ''}{reasons}"


def _reason(problem: Problem) -> str:
    found = REASON.search(problem.message)
    assert found is not None, problem
    return found[1]


def table() -> dict[str, str]:
    """The reviewed table."""
    lines = (line.partition("  ") for line in EXPECTED.read_text(encoding="utf-8").splitlines())
    return {name: said.strip() for name, _, said in lines}


def encode(found: Mapping[str, str]) -> str:
    """Outcomes as the text of the table."""
    width = max(map(len, found))
    return "".join(f"{name:{width}}  {said}\n" for name, said in found.items())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        text = encode(outcomes(Path(scratch)))
    if "--write" in sys.argv:
        EXPECTED.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
