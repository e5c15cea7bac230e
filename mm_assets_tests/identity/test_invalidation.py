import difflib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mm_assets.identity.code import ROOT
from mm_assets_tests.identity.invalidation import TABLE, WRITE, invalidated, modules, render

#: Appends a line to one module after the other and prints which assets' code digests changed each time.
EDIT = '''
import importlib, json, sys
from mm_assets.identity import code
from mm_assets.pipeline import ASSETS, code_roots

def by_source(function):
    """What was found out about a module holds as long as its source does."""
    known = {}
    def remembered(module):
        key = module, code._module_path(module).read_bytes()
        if key not in known:
            known[key] = function.__wrapped__(module)
        return known[key]
    return remembered

code.imports_of, code._normalised = by_source(code.imports_of), by_source(code._normalised)

def digests():
    return {asset.name: code.code_digest.__wrapped__(*code_roots(asset)) for asset in ASSETS.values()}

before, changed = digests(), {}
for module in json.load(sys.stdin):
    path = code._module_path(module)
    source = path.read_bytes()
    path.write_bytes(source + b"\\n_HARMLESS = 1\\n")
    after = digests()
    changed[module] = [name for name in before if after[name] != before[name]]
    path.write_bytes(source)
print(json.dumps(changed))
'''
#: From both ends of the pipeline, below it, and from what it does not follow.
SAMPLE = (
    "mm_assets.errors",
    "mm_assets.features.extract",
    "mm_assets.store.objects",
    "mm_assets.store.tables",
    "mm_assets.training.network",
)


def _changed_by_edit(folder: Path, names: list[str]) -> dict[str, tuple[str, ...]]:
    shutil.copytree(ROOT, folder / ROOT.name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", EDIT],
        input=json.dumps(names), capture_output=True, text=True, check=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )  # fmt: skip
    return {module: tuple(assets) for module, assets in json.loads(done.stdout).items()}


def test_an_edit_recomputes_what_the_table_says() -> None:
    actual, expected = render(invalidated()), TABLE.read_text(encoding="utf-8")
    difference = "\n".join(difflib.unified_diff(expected.splitlines(), actual.splitlines(), "table", "package", n=1))
    assert actual == expected, f"{difference}\nIf this is intended, write the table again:\n{WRITE}"


def test_edited_module_changes_the_digests_that_the_table_names(tmp_path: Path) -> None:
    table = invalidated()
    assert _changed_by_edit(tmp_path, list(SAMPLE)) == {module: table[module] for module in SAMPLE}


@pytest.mark.slow
def test_every_edited_module_changes_the_digests_that_the_table_names(tmp_path: Path) -> None:
    assert _changed_by_edit(tmp_path, modules()) == invalidated()
