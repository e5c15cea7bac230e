"""Code digests cover what makes bytes; whatever else runs in a computation is listed here with its reason."""

import ast
import builtins
import sys
from collections.abc import Iterator

import pytest

import mm_assets.errors as errors_module
from mm_assets.errors import MmError
from mm_assets.identity import code
from mm_assets.identity.code import LOG_METHODS, PACKAGE, closure
from mm_assets.pipeline import ASSETS, Asset, code_roots
from mm_assets_tests.identity.invalidation import modules

#: Modules that run while an asset is computed although its code digest does not cover them.
UNCOUNTED = {
    "mm_assets.errors": "classes without code",
    "mm_assets.store.action": "is about fingerprints; that of the spec in a model is of what the action holds",
    "mm_assets.store.client": "moves bytes",
    "mm_assets.store.commit": "commits the outputs that it is given",
    "mm_assets.store.embedded": "starts an S3 server",
    "mm_assets.store.job": "hands out the objects that the action names",
    "mm_assets.store.manifest": "describes outputs by name and digest",
    "mm_assets.store.objects": "moves bytes and verifies them",
    "mm_assets.store.refs": "says what a partition is; a computation asks for none",
}
#: The same for one asset.
UNCOUNTED_OF = {
    "embeddings": {
        "mm_assets.identity.canonical": "only the store uses it here, to name objects by their digests",
        "mm_assets.features.production": "the digest of its code is a parameter of what an encoder of towers makes",
        "mm_assets.features.towers": "the same",
        "mm_assets.modalities.kinds": "the same",
        "mm_assets.modalities.layer": "the same",
        "mm_assets.modalities.shapes": "the same",
        "mm_assets.features.mel_bands": "the same of one with weights from elsewhere",
        "mm_assets.features.pretrained_models": "the same",
        "mm_assets.features.pretrained_types": "the same",
    },
    "model": {
        "mm_assets.settings": "says in which environment ranks start: without what would change a bit",
        "mm_assets.training.processes": "starts, watches and ends the ranks",
        "mm_assets.training.resume": "keeps and finds checkpoints by digest; other bits than before are an error",
        "mm_assets.training.train": "calls what prepares, trains and collects, and decides nothing of it",
        "mm_assets.training.worker": "reports progress and errors of a rank",
    },
    "registration": {
        "mm_assets.promotion.reachable": "re-hashes objects and refuses",
        "mm_assets.features.pretrained": "says which files an encoder has, so that they are re-hashed",
        "mm_assets.features.config": "imported by that one, and not used",
        "mm_assets.features.pretrained_types": "the same",
    },
}
#: Libraries that an asset's code uses and whose version changes no byte of its outputs.
HARMLESS = {
    "pydantic": "checks values that were read and copies them",
    "rfc8785": "writes the only form of a value that the standard allows",
}
HARMLESS_OF = {
    "snapshot": {"duckdb": "reads a Parquet footer before pyarrow does, and refuses the drop where it is damaged"},
    "promotion": {"pyarrow": "only reads tables, whose values are the same in any version"},
    # The environment identity of a launched stage names numpy, pyarrow, safetensors and torch.
    "evaluation": {"PIL": "its version is among the parameters"},
}
DISTRIBUTIONS = {"PIL": "pillow", "fasttext": "fasttext-predict", "yaml": "pyyaml"}
IN_ENVIRONMENT = {"numpy", "pyarrow", "safetensors", "torch"}
#: Handlers that write the text of an error into data and would also catch the package's own; none is raised there.
BROAD_HANDLERS = {
    ("mm_assets.drops.blobs", "Exception"): "raises the package's own again; only the error's type is written",
    ("mm_assets.features.extract", "Exception"): "raises the package's own again; only the error's type is written",
    ("mm_assets.drops.tar", "tarfile.TarError, EOFError, ValueError, OverflowError"): "raises the package's own again",
    ("mm_assets.drops.parquet_rows", "ValueError, OverflowError, pa.ArrowException"): "calls pyarrow only",
    ("mm_assets.modalities.audio.header", "soundfile.LibsndfileError, RuntimeError"): "calls soundfile only",
    ("mm_assets.modalities.image.decode", "Exception"): "calls Pillow only",
    ("mm_assets.modalities.image.header", "Exception"): "calls Pillow only",
    ("mm_assets.modalities.video.header", "FFmpegError, ValueError"): "calls FFmpeg only",
    ("mm_assets.training.checkpoint", "BaseException"): "keeps the error and raises it in the other thread",
}
PACKAGES = [asset for asset in ASSETS.values()]


def _tree(module: str) -> ast.Module:
    return code._without_type_checking(code._parse(module))


def _runs(asset: Asset) -> set[str]:
    """What can run in a computation: what ``compute`` imports, starts by name in a process or takes from a table."""
    known, found = set(modules()) - {PACKAGE}, set[str]()
    queue = [asset.compute.partition(":")[0], *code_roots(asset)]
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            tree = _tree(name)
            queue += code._imported_modules(tree)
            queue += [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known
            ]
    return {name for name in found if not code._module_path(name).name == "__init__.py"}


@pytest.mark.parametrize("asset", PACKAGES, ids=lambda asset: asset.name)
def test_what_runs_in_a_computation_is_counted_or_listed_with_a_reason(asset: Asset) -> None:
    uncounted = _runs(asset) - set(closure(*code_roots(asset)))
    listed = UNCOUNTED_OF.get(asset.name, {})
    assert uncounted - set(UNCOUNTED) == set(listed)


def test_every_listed_module_runs_somewhere() -> None:
    assert set(UNCOUNTED) <= set().union(*map(_runs, ASSETS.values()))


@pytest.mark.parametrize("asset", PACKAGES, ids=lambda asset: asset.name)
def test_libraries_of_a_computation_are_in_its_code_digest_or_its_environment(asset: Asset) -> None:
    used = {name for module in closure(*code_roots(asset)) for name in _libraries(module)}
    harmless = {**HARMLESS, **HARMLESS_OF.get(asset.name, {})}
    unexplained = {DISTRIBUTIONS.get(name, name) for name in used - set(harmless)}
    counted = set(asset.libraries) | (IN_ENVIRONMENT if asset.is_launched else set())
    if asset.is_remembered:
        assert unexplained <= counted
    assert set(asset.libraries) <= unexplained


def _libraries(module: str) -> Iterator[str]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        tops = {name.partition(".")[0] for name in names}
        yield from tops - set(sys.stdlib_module_names) - {PACKAGE}


def test_no_counted_module_writes_the_text_of_an_error_of_the_package_into_data() -> None:
    counted = set().union(*(closure(*code_roots(asset)) for asset in ASSETS.values()))
    found = {place for module in counted for place in _handlers_that_speak(module, _tree(module))}
    own = {place for place in found if place not in BROAD_HANDLERS}
    assert own == set(), "give these dead letters or reports a sentence of their own"
    assert found == set(BROAD_HANDLERS)


@pytest.mark.parametrize(
    ("handler", "speaks"),
    [
        ("except IdentityError as error:\n    row = str(error)", True),
        ("except Known as error:\n    row = f'{error}'", True),
        ("except (KeyError, MmError) as error:\n    rows.append(error)", True),
        ("except Exception as error:\n    row = str(error)", True),
        ("except ValueError as error:\n    row = str(error)", True),
        ("except IdentityError:\n    row = 'own words'", False),
        ("except IdentityError as error:\n    raise ValueError(str(error)) from error", False),
        ("except IdentityError as error:\n    logger.warning('%s', error)", False),
        ("except UnicodeDecodeError as error:\n    row = error.reason", False),
        ("except duckdb.Error as error:\n    row = str(error)", False),
    ],
)
def test_a_handler_that_keeps_the_text_of_an_error_is_seen(handler: str, speaks: bool) -> None:
    head = "from mm_assets.errors import IdentityError, MmError\nfrom mm_assets.errors import CheckError as Known\n"
    assert bool(list(_handlers_that_speak("m", ast.parse(f"{head}try:\n    f()\n{handler}\n")))) is speaks


def _handlers_that_speak(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    own = {
        alias.asname or alias.name: getattr(errors_module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == errors_module.__name__
        for alias in node.names
    }
    ours = [value for value in vars(errors_module).values() if isinstance(value, type) and issubclass(value, MmError)]
    for handler in ast.walk(tree):
        if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type is not None:
            parts = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
            names = [part.id for part in parts if isinstance(part, ast.Name)]
            caught = [kind for name in names if isinstance(kind := own.get(name, getattr(builtins, name, None)), type)]
            ours_caught = any(issubclass(kind, MmError) or issubclass(one, kind) for kind in caught for one in ours)
            if ours_caught and any(_keeps(statement, handler.name) for statement in handler.body):
                yield module, ast.unparse(handler.type).strip("()")


def _keeps(node: ast.AST, bound: str) -> bool:
    if isinstance(node, ast.Raise) or (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and ast.unparse(node.value.func.value) == "logger"
        and node.value.func.attr in LOG_METHODS
    ):
        return False
    if isinstance(node, ast.Name) and node.id == bound:
        return True
    return any(_keeps(child, bound) for child in ast.iter_child_nodes(node))
