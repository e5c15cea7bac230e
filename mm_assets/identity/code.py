"""Digests of code: the normalised source of a module and of everything of this package that it imports."""

import ast
import functools
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from mm_assets.errors import IdentityError
from mm_assets.identity.canonical import digest_json

PACKAGE = "mm_assets"
ROOT = Path(__file__).parents[1]
#: Modules that move bytes but never choose them. They are left out of a stage's code digest, so that a new retry
#: rule in the store does not recompute a release.
NEUTRAL_MODULES = frozenset({"mm_assets.errors", "mm_assets.settings", "mm_assets.store", "mm_assets.charts"})


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions of the named distributions, without importing them."""
    return {name: metadata.version(name) for name in sorted(names)}


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
    base = ROOT.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    raise IdentityError(f"module {module}: has no source file below {ROOT.name}: its code has no digest.")


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
    base = ROOT.joinpath(*name.split(".")[1:])
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
