"""What things are called: canonical JSON, digests, fingerprints, code digests and keyed randomness.

Invariant: nothing here reads a clock, a host name, an environment variable or dict order, so the same value has
the same name on every machine. A value with no stable encoding raises; it is never passed through ``str``.
"""

import ast
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import rfc8785

from mm_assets.errors import IdentityError

Json: TypeAlias = "None | bool | int | float | str | Sequence[Json] | Mapping[str, Json]"

PACKAGE = "mm_assets"
CHUNK_BYTES = 1 << 20

#: Modules that move bytes but never choose them. They are left out of a stage's code digest, so that a new retry
#: rule in the store does not recompute a release.
NEUTRAL_MODULES = frozenset({"mm_assets.errors", "mm_assets.settings", "mm_assets.store", "mm_assets.charts"})


def to_json(value: object) -> Json:
    """``value`` as plain JSON: frozen dataclasses become objects, tuples become arrays.

    Raises:
        IdentityError: a value (or a nested one) has no stable encoding.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_string_key(key): to_json(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in cast("Sequence[object]", value)]
    raise IdentityError(
        f"{type(value).__name__} value {value!r}: has no stable encoding: expected JSON values, dataclasses or "
        "tuples. Convert it before it enters a recipe."
    )


def _string_key(key: object) -> str:
    if not isinstance(key, str):
        raise IdentityError(f"mapping key {key!r}: has no stable encoding: expected str, got {type(key).__name__}.")
    return key


def canonical_json(value: object) -> bytes:
    """RFC 8785 bytes of ``value``.

    Raises:
        IdentityError: a value has no stable encoding (also NaN, infinities and integers beyond 2**53).
    """
    try:
        return rfc8785.dumps(cast("dict[str, object]", to_json(value)))  # pyright: ignore[reportArgumentType]
    except rfc8785.CanonicalizationError as error:
        raise IdentityError(f"value: has no canonical JSON: {error}.") from error


def digest_bytes(data: bytes | memoryview) -> str:
    """``sha256:<64 hex>`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """``sha256:<64 hex>`` of a file, read in chunks."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: object) -> str:
    """Digest of the canonical JSON of ``value``."""
    return digest_bytes(canonical_json(value))


def digest_hex(digest: str) -> str:
    """The 64 hex digits of ``sha256:<hex>``.

    Raises:
        IdentityError: ``digest`` is not of that form.
    """
    algorithm, _, hexadecimal = digest.partition(":")
    if algorithm != "sha256" or len(hexadecimal) != 64 or not set(hexadecimal) <= set("0123456789abcdef"):
        raise IdentityError(f"digest {digest!r}: is malformed: expected sha256:<64 lower-case hex digits>.")
    return hexadecimal


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions of the named distributions, without importing them."""
    return {name: metadata.version(name) for name in sorted(names)}


def keyed_rng(*key: str | int) -> np.random.Generator:
    """A generator whose stream depends on ``key`` alone (Philox, keyed by the digest of the key)."""
    seed = hashlib.sha256(canonical_json(list(key))).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(seed, "big")))


@functools.cache
def code_digest(*roots: str) -> str:
    """Digest of the normalised source of the modules ``roots`` and everything of this package they import.

    The source is parsed, not imported, so a torch module can be named by a process without torch. Comments,
    docstrings and layout do not count; ``NEUTRAL_MODULES`` are not followed.

    Raises:
        IdentityError: a root is not a module of this package.
    """
    sources: dict[str, str] = {}
    queue = list(roots)
    while queue:
        name = queue.pop()
        if name in sources or _is_neutral(name):
            continue
        tree = ast.parse(_module_path(name).read_text(encoding="utf-8"))
        queue.extend(_imported_modules(tree))
        sources[name] = ast.dump(_without_docstrings(tree), annotate_fields=False)
    return digest_json(sources)


def _is_neutral(module: str) -> bool:
    return module in NEUTRAL_MODULES or any(module.startswith(neutral + ".") for neutral in NEUTRAL_MODULES)


def _module_path(module: str) -> Path:
    root = Path(__file__).parent
    base = root.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise IdentityError(f"module {module}: has no source file below {root.name}: its code has no digest.")


def _imported_modules(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from mm_assets.a import b` may name a module b or an attribute of a.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith(PACKAGE + ".") and _is_module(name))


def _is_module(name: str) -> bool:
    base = Path(__file__).parent.joinpath(*name.split(".")[1:])
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
