import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mm_assets.errors as errors_module
from mm_assets.errors import IdentityError
from mm_assets.identity.canonical import canonical_json, digest_bytes, digest_file, digest_hex, digest_json, to_json
from mm_assets.identity.code import code_digest, library_versions
from mm_assets.identity.randomness import keyed_rng

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
#: JSON has one kind of number: a float beyond 2**53 reads back as an integer without a stable encoding.
LARGEST = 2**53 - 1
NUMBERS = st.integers(-LARGEST, LARGEST) | st.floats(-LARGEST, LARGEST)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)

#: First numbers of two streams; other ones would change every plan, split and augmentation.
GOLDEN_INTEGERS = [397790, 578916, 92498, 266584]
GOLDEN_EMPTY = [101523, 865554]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    y: int
    x: tuple[int, ...] = ()


@pytest.mark.property
@given(JSON)
def test_canonical_json_reads_back_as_the_same_value(value):
    assert json.loads(canonical_json(value)) == value


@pytest.mark.property
@given(JSON)
def test_canonical_json_of_what_was_read_back_is_the_same_bytes(value):
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@pytest.mark.property
@given(st.dictionaries(TEXT, st.integers(0, 9), max_size=6))
def test_order_of_keys_does_not_matter(value):
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_canonical_json_is_rfc_8785():
    value = {"€": "Euro", "\r": 1, "b": [1.0, 1e21, 0.1, -0.0], "a": 'quote " and \n'}
    assert canonical_json(value) == ('{"\\r":1,"a":"quote \\" and \\n","b":[1,1e+21,0.1,0],"€":"Euro"}').encode()


def test_dataclasses_and_tuples_are_objects_and_arrays():
    assert to_json({"p": Point(y=1, x=(2, 3))}) == {"p": {"y": 1, "x": [2, 3]}}


@pytest.mark.parametrize(
    "value",
    [{1, 2}, b"bytes", Path("p"), object(), float("nan"), float("inf"), 2**53, {1: 2}, Point, np.float32(1), 1j],
    ids=lambda value: type(value).__name__,
)
def test_value_without_a_stable_encoding_raises(value):
    with pytest.raises(IdentityError):
        canonical_json({"nested": [value]})


def test_error_names_the_value_that_has_no_encoding():
    with pytest.raises(IdentityError, match=r"PosixPath value PosixPath\('p'\): has no stable encoding"):
        digest_json({"a": Path("p")})


def test_digests_are_golden_values(tmp_path):
    expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "f").write_bytes(b"abc")
    assert digest_bytes(b"abc") == digest_file(tmp_path / "f") == expected
    assert digest_hex(expected) == expected[7:]
    assert digest_json({"a": 1}) == digest_bytes(b'{"a":1}')


@pytest.mark.parametrize("text", ["", "ba78", "md5:" + "0" * 64, "sha256:" + "0" * 63, "sha256:" + "A" * 64])
def test_malformed_digest_is_refused(text):
    with pytest.raises(IdentityError, match="is malformed"):
        digest_hex(text)


def test_keyed_random_numbers_are_golden_values():
    assert keyed_rng("plan", 7, 0).integers(0, 1_000_000, 4).tolist() == GOLDEN_INTEGERS
    assert keyed_rng().integers(0, 1_000_000, 2).tolist() == GOLDEN_EMPTY


def test_keyed_streams_differ_and_do_not_run_together():
    streams = [keyed_rng("a", 1), keyed_rng("a", 2), keyed_rng("a1"), keyed_rng("a", "1"), keyed_rng(1, "a")]
    assert len({tuple(rng.integers(0, 2**31, 4)) for rng in streams}) == len(streams)


def test_library_versions_come_from_the_installed_distributions():
    assert library_versions("numpy") == {"numpy": np.__version__}


# Code digests, in a copy of the package so that its source can be changed.

ORIGINAL = '"""Doc."""\nfrom mm_assets.low import value\n\n\ndef f(x):\n    """Doc."""\n    return x + value\n'
LOW = "value = 1\n"


@pytest.fixture
def digest_of(tmp_path):
    """Digest of ``mm_assets.top`` in a package made of the given modules, computed by a fresh interpreter."""
    root = Path(errors_module.__file__).parent

    def compute(**modules):
        folder = tmp_path / digest_hex(digest_json(modules))[:8] / "mm_assets"
        folder.mkdir(parents=True)
        shutil.copytree(root / "identity", folder / "identity")
        shutil.copy(root / "errors.py", folder)
        (folder / "__init__.py").write_text('"""Package."""\n', encoding="utf-8")
        for name, source in modules.items():
            path = folder.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(source, encoding="utf-8")
        code = "import sys; sys.path.insert(0, sys.argv[1]); from mm_assets.identity.code import code_digest; "
        code += "print(code_digest('mm_assets.top'))"
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder.parent)], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return done.stdout.strip()

    return compute


def test_comments_docstrings_and_layout_do_not_change_a_code_digest(digest_of):
    other = "# A comment.\nfrom mm_assets.low import (\n    value,\n)\n"
    other += "def f(x):\n    'Other.'\n    return (x +  value)  # sum\n"
    assert digest_of(top=ORIGINAL, low=LOW) == digest_of(top=other, low="value = 0x1 # one\n")


def test_code_constants_and_names_change_a_code_digest(digest_of):
    changes = ("return x - value", "return x + value + 0", "return (x, value)")
    digests = {digest_of(top=ORIGINAL.replace("return x + value", change), low=LOW) for change in changes}
    assert len(digests | {digest_of(top=ORIGINAL, low=LOW)}) == len(changes) + 1


def test_string_that_is_no_docstring_counts(digest_of):
    assert digest_of(top="f = 'a'\n") != digest_of(top="f = 'b'\n")


def test_imported_module_changes_the_digest_also_when_imported_inside_a_function(digest_of):
    lazy = "def f():\n    import mm_assets.low\n    return mm_assets.low.value\n"
    attribute = "from mm_assets import low\n"
    for top in (ORIGINAL, lazy, attribute):
        assert digest_of(top=top, low="value = 1\n") != digest_of(top=top, low="value = 2\n")


def test_module_that_is_not_imported_and_neutral_ones_do_not_change_the_digest(digest_of):
    top = "import mm_assets.settings\nfrom mm_assets.low import value\n"
    first = digest_of(top=top, low=LOW, settings="a = 1\n", unrelated="b = 1\n")
    assert first == digest_of(top=top, low=LOW, settings="a = 2\n", unrelated="b = 2\n")


def test_modules_that_import_each_other_have_a_digest(digest_of):
    assert digest_of(top="import mm_assets.low\n", low="import mm_assets.top\n").startswith("sha256:")


def test_module_without_source_is_named():
    with pytest.raises(IdentityError, match=r"module mm_assets\.nowhere: has no source file"):
        code_digest("mm_assets.nowhere")


SPEAKING = """import logging
from collections import Counter
from mm_assets.errors import CheckError, StageError
from mm_assets.low import value

logger = logging.getLogger(__name__)


def f(x: int, scale: float = 1.0) -> float:
    logger.info("computing %s", x)
    if x < 0:
        logger.warning("below zero")
    if x > 9:
        raise StageError(f"x: is {x}: expected at most 9.")
    return x * scale * value
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("expected at most 9.", "expected 9 or less. Choose a smaller one."),
        ('"computing %s", x', '"computing x = %s, scale %s", x, scale'),
        ('    logger.info("computing %s", x)\n', ""),
        ("def f(x: int, scale: float = 1.0) -> float", "def f(x: 'int', scale=1.0)"),
        ("import logging\nfrom collections import Counter\n", "from collections import Counter\nimport logging\n"),
        ("from collections import Counter\n", "from collections import Counter\nfrom typing import TYPE_CHECKING\n"
         "if TYPE_CHECKING:\n    from mm_assets.other import Other\n"),
    ],
    ids=["error", "log", "no log", "annotations", "order of imports", "type checking"],
)  # fmt: skip
def test_what_reaches_no_output_does_not_change_a_code_digest(digest_of, old, new):
    assert old in SPEAKING
    top, other = SPEAKING, SPEAKING.replace(old, new)
    if "TYPE_CHECKING" in new:  # The name itself is an import that runs.
        top = top.replace("import Counter\n", "import Counter\nfrom typing import TYPE_CHECKING\n")
    assert digest_of(top=top, low=LOW, other="a = 1\n") == digest_of(top=other, low=LOW, other="a = 2\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scale: float = 1.0", "scale: float = 2.0"),
        ("raise StageError", "raise CheckError"),
        ('logger.info("computing %s", x)', 'logger.info("computing %s", value.pop())'),
        ("    if x < 0:\n", "    if x < 1:\n"),
    ],
    ids=["default", "class of the error", "call inside a log line", "condition"],
)
def test_what_can_reach_an_output_changes_a_code_digest(digest_of, old, new):
    assert old in SPEAKING
    assert digest_of(top=SPEAKING, low=LOW) != digest_of(top=SPEAKING.replace(old, new), low=LOW)


def test_fields_of_a_class_count(digest_of):
    assert digest_of(top="class A:\n    x: int = 1\n") != digest_of(top="class A:\n    x: float = 1\n")


def test_tables_are_followed_and_the_rest_of_the_store_is_not(digest_of):
    top = "from mm_assets.store import objects, tables\n"
    first = digest_of(top=top, store__objects="a = 1\n", store__tables="level = 3\n")
    assert first == digest_of(top=top, store__objects="a = 2\n", store__tables="level = 3\n")
    assert first != digest_of(top=top, store__objects="a = 1\n", store__tables="level = 4\n")
