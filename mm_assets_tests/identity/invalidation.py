"""The table of what an edit recomputes: for every module, the assets whose code digest changes with its code.

``python -m mm_assets_tests.identity.invalidation --write`` writes it again after an intended change.
"""

import argparse
import sys
from pathlib import Path

from mm_assets.identity.code import PACKAGE, ROOT, closure
from mm_assets.pipeline import ASSETS, code_roots

TABLE = Path(__file__).with_name("invalidation.txt")
WRITE = "python -m mm_assets_tests.identity.invalidation --write"
HEAD = f"""\
What an edit recomputes. One harmless line in a module changes the code digest of the assets that its block names,
and of no other. The test compares this file with the package. Write it again with
{WRITE}
"""


def modules() -> list[str]:
    """Every module of the package, in alphabetical order."""
    names = (path.relative_to(ROOT.parent).with_suffix("").parts for path in ROOT.rglob("*.py"))
    return sorted(".".join(parts).removesuffix(".__init__") for parts in names)


def invalidated() -> dict[str, tuple[str, ...]]:
    """Names of the assets that each module invalidates, in the order of the pipeline."""
    closures = {asset.name: set(closure(*code_roots(asset))) for asset in ASSETS.values()}
    return {module: tuple(name for name in closures if module in closures[name]) for module in modules()}


def render(table: dict[str, tuple[str, ...]]) -> str:
    """The table as text: a block per set of assets, those that begin earliest in the pipeline first."""
    order = {name: index for index, name in enumerate(ASSETS)}
    blocks: dict[tuple[str, ...], list[str]] = {}
    for module, assets in table.items():
        blocks.setdefault(assets, []).append(module.removeprefix(f"{PACKAGE}."))
    parts = [HEAD]
    for assets in sorted(blocks, key=lambda names: (not names, [order[name] for name in names])):
        lines = "".join(f"    {module}\n" for module in blocks[assets])
        parts.append(f"{', '.join(assets) or 'invalidates nothing'}\n{lines}")
    return "\n".join(parts)


def main() -> int:
    """Prints the table, or writes it to its file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="write the table to its file")
    text = render(invalidated())
    if parser.parse_args().write:
        TABLE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
