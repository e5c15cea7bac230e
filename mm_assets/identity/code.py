"""Digests of code: the normalised source of a module and of everything of this package that it imports.

What cannot change a byte of an output does not count: comments, docstrings, layout, the order of imports, lines that
only log, the sentences of the package's errors, annotations of functions, imports for type checking. No module whose
code counts may write the sentence of an error into data; a test looks for it.
"""

import ast
import functools
import threading
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from mm_assets.errors import IdentityError
from mm_assets.identity.canonical import digest_json

PACKAGE = "mm_assets"
ROOT = Path(__file__).parents[1]
#: Modules that are not followed, with everything below them, and why they make no bytes.
NEUTRAL_MODULES = {
    "mm_assets.errors": "classes without code; which of them is raised counts where it is raised",
    "mm_assets.settings": "says where things are and how they run, never what is computed",
    "mm_assets.store": "moves bytes and verifies them by digest, but chooses none",
    "mm_assets.charts": "draws previews, which are in no output",
    "mm_assets.promotion.reachable": "re-hashes objects and refuses; writes nothing",
}
#: Modules below a neutral one that are followed all the same, and why.
FOLLOWED_MODULES = {"mm_assets.store.tables": "its compression, row groups and batch rows decide the bytes of tables"}

LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
#: Decorators that read no annotations; a function under any other one keeps them.
PLAIN_DECORATORS = frozenset(
    {"property", "staticmethod", "classmethod", "contextmanager", "override", "abstractmethod", "cache",
     "cached_property", "lru_cache"}
)  # fmt: skip

#: CPython 3.11 counts the depth of a parse in one place for all threads, and fails if two parse at a time.
_PARSING = threading.Lock()

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def library_versions(*names: str) -> dict[str, str]:
    """Installed versions of the named distributions, without importing them."""
    return {name: metadata.version(name) for name in sorted(names)}


@functools.cache
def code_digest(*roots: str) -> str:
    """Digest of the normalised source of the modules ``roots`` and everything of this package they import.

    The source is parsed, not imported, so a torch module can be named by a process without torch.

    Raises:
        IdentityError: a root is not a module of this package.
    """
    return digest_json({name: _normalised(name) for name in closure(*roots)})


def closure(*roots: str) -> tuple[str, ...]:
    """Names of the modules that ``roots`` import, directly or not, themselves included, in alphabetical order.

    Raises:
        IdentityError: a root is not a module of this package.
    """
    found: set[str] = set()
    queue = [name for name in roots if not is_neutral(name)]
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue.extend(imports_of(name))
    return tuple(sorted(found))


@functools.cache
def imports_of(module: str) -> tuple[str, ...]:
    """Modules of this package that ``module`` imports when it runs, neutral ones left out."""
    names = set(_imported_modules(_without_type_checking(_parse(module))))
    return tuple(sorted(name for name in names if not is_neutral(name)))


def is_neutral(module: str) -> bool:
    """Whether a module is not followed because it makes no bytes."""
    if module in FOLLOWED_MODULES:
        return False
    return any(module == neutral or module.startswith(neutral + ".") for neutral in NEUTRAL_MODULES)


def _parse(module: str) -> ast.Module:
    source = _module_path(module).read_text(encoding="utf-8")
    with _PARSING:
        return ast.parse(source)


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


def _without_type_checking(tree: ast.Module) -> ast.Module:
    return ast.fix_missing_locations(_TypeCheckingRemover().visit(tree))


def _error_names(tree: ast.AST) -> set[str]:
    """Names under which a module knows the classes of ``mm_assets.errors``."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == f"{PACKAGE}.errors"
        for alias in node.names
    }


def _logger_name(tree: ast.Module) -> str | None:
    """The module's logger: one name, bound once, to ``logging.getLogger(...)``."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.value).startswith("logging.getLogger("):
            target = statement.targets[0]
            if isinstance(target, ast.Name) and _times_bound(tree, target.id) == 1:
                return target.id
    return None


def _times_bound(tree: ast.AST, name: str) -> int:
    return sum(
        (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.arg) and node.arg == name)
        for node in ast.walk(tree)
    )


def _is_log(node: ast.AST, logger: str | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and isinstance(node.value.func.value, ast.Name)
        and node.value.func.value.id == logger
        and node.value.func.attr in LOG_METHODS
    )


@functools.cache
def _normalised(module: str) -> str:
    tree = _without_type_checking(_parse(module))
    tree = _Normaliser(errors=_error_names(tree), logger=_logger_name(tree)).visit(tree)
    return ast.dump(tree, annotate_fields=False)


class _TypeCheckingRemover(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            return node.orelse
        return node


class _Normaliser(ast.NodeTransformer):
    """Takes out of a module what cannot change a byte.

    Args:
        errors: Names of the package's error classes: what they say reaches no output.
        logger: Name of the module's logger.
    """

    def __init__(self, *, errors: set[str], logger: str | None) -> None:
        self._errors = errors
        self._logger = logger

    def visit_Module(self, node: ast.Module) -> ast.AST:
        node.body = [
            statement
            for statement in node.body
            if not (isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == self._logger)
        ]
        self._block(node)
        uses_logging = any(isinstance(inner, ast.Name) and inner.id == "logging" for inner in ast.walk(node))
        node.body = [
            statement
            for statement in node.body
            if uses_logging or not (isinstance(statement, ast.Import) and ast.unparse(statement) == "import logging")
        ]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._block(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name) and node.exc.func.id in self._errors:
            node.exc.args, node.exc.keywords = [], []
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.stmt] | None:
        self.generic_visit(node)
        if not _is_log(node, self._logger):
            return node
        assert isinstance(node.value, ast.Call)
        # A call among the arguments may do something: it stays, without the line that logs it.
        arguments = [*node.value.args, *(keyword.value for keyword in node.value.keywords)]
        return [ast.Expr(effect) for argument in arguments for effect in _effects(argument)]

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                # What only logged leaves an empty block behind.
                empty = [ast.Pass()] if name == "body" and not isinstance(node, ast.Module) else []
                setattr(node, name, _sorted_imports(block) or empty)
        return node

    def _block(self, node: ast.Module | ast.ClassDef | _Function) -> None:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        self.generic_visit(node)

    def _function(self, node: _Function) -> ast.AST:
        if all(_decorator(decorator) in PLAIN_DECORATORS for decorator in node.decorator_list):
            node.returns = None
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg):
                    argument.annotation = None
        self._block(node)
        return node


def _decorator(node: ast.expr) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]


def _effects(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call | ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _effects(child)


def _sorted_imports(block: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The block with every run of imports taken apart into single names, in alphabetical order."""
    result: list[ast.stmt] = []
    run: list[ast.stmt] = []
    for statement in block:
        if isinstance(statement, ast.Import):
            run += [ast.Import(names=[alias]) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            run += [ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names]
        else:
            result += [*sorted(run, key=ast.unparse), statement]
            run = []
    return [*result, *sorted(run, key=ast.unparse)]
