"""What an expression of a policy may be: one repeatable yes-or-no expression over the columns of one sample.

The expression is parsed by DuckDB and its tree is looked at, so no spelling of it can reach a table, a file, a clock
or another sample. Everything that is not listed here is refused.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import duckdb
import pyarrow as pa

from mm_assets.errors import SpecError

_CLASSES = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
     "OPERATOR", "TYPE"}
)  # fmt: skip
#: Levels of the tree that DuckDB makes of an expression; each term of a long sum takes three.
MAX_DEPTH = 600
#: What is beyond one sample, by the class of its node.
_BEYOND = {
    "SUBQUERY": "a query",
    "WINDOW": "a window over other samples",
    "STAR": "all columns",
    "PARAMETER": "a parameter",
}
#: Repeatable by DuckDB's book, and yet about the clock or the library.
_SESSION = frozenset({"age", "current_localtime", "current_localtimestamp", "version"})


def require_usable(where: str, sql: str, schema: pa.Schema) -> None:
    """Refuses an expression that cannot judge a sample by its own columns.

    Args:
        where: What to call it in an error.
        sql: The expression.
        schema: The columns it may name.

    Raises:
        SpecError: it is no expression, is not yes or no, names an unknown column, or depends on anything else.
    """
    with duckdb.connect() as database:
        database.execute("SET enable_external_access = false")
        for node in _nodes(_parse(database, where, sql)):
            _require_allowed(database, where, node, schema)
        database.register("samples", schema.empty_table())
        try:
            kind = str(database.sql(f"SELECT (\n{sql}\n) AS verdict FROM samples").types[0])
        except duckdb.Error as error:
            raise SpecError(f"{where}: {_first_line(error)}, got {sql!r}. Correct the expression.") from error
    if kind != "BOOLEAN":
        raise SpecError(
            f"{where}: is not a yes-or-no expression: expected BOOLEAN, got {kind} from {sql!r}. Compare it."
        )


def columns_of(sql: str) -> set[str]:
    """The columns that a usable expression names, in lower case."""
    with duckdb.connect() as database:
        nodes = _nodes(_parse(database, "expression", sql))
        return {str(node["column_names"][0]).lower() for node in nodes if node["class"] == "COLUMN_REF"}


def _parse(database: duckdb.DuckDBPyConnection, where: str, sql: str) -> dict[str, Any]:
    """The tree of ``SELECT (sql)``, which holds one expression and nothing else."""

    def tree(text: str, brackets: str = "()") -> dict[str, Any]:
        wrapped = f"SELECT {brackets[0]}\n{text}\n{brackets[1]}"
        [(parsed,)] = database.execute("SELECT json_serialize_sql(?)", [wrapped]).fetchall()
        if _depth(parsed) > MAX_DEPTH:
            raise SpecError(
                f"{where}: is nested too deep: expected {MAX_DEPTH} levels of its tree at most, got {_depth(parsed)}. "
                "Divide it into several reasons."
            )
        return json.loads(parsed)

    found = tree(sql)
    if found.get("error"):
        raise SpecError(
            f"{where}: is not an expression: {' '.join(str(found['error_message']).split())}, got {sql!r}. Correct it."
        )
    statements = found["statements"]
    node, plain = statements[0]["node"], tree("TRUE")["statements"][0]["node"]
    rest = {name: value for name, value in node.items() if name not in ("select_list", "from_table")}
    expected = {name: value for name, value in plain.items() if name not in ("select_list", "from_table")}
    source = cast("dict[str, Any]", node.get("from_table", {}))
    if len(statements) != 1 or rest != expected or source.get("type") != "EMPTY" or len(node["select_list"]) != 1:
        raise SpecError(f"{where}: looks beyond one sample: expected one expression, got {sql!r}. Use signals alone.")
    if tree(sql, "[]").get("error"):
        # `a) OR (b` is an expression between parentheses alone, and another one behind NOT.
        raise SpecError(f"{where}: is not an expression: its parentheses do not match, got {sql!r}. Correct it.")
    return node["select_list"][0]


def _depth(document: str) -> int:
    """How deep the brackets of a JSON document are nested; those in its texts are none."""
    depth = deepest = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', document):
        depth += (bracket in "[{") - (bracket in "]}")
        deepest = max(deepest, depth)
    return deepest


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of an expression's tree, each before those in it."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            node = cast("dict[str, Any]", value)
            if "class" in node:
                yield node
            waiting += reversed(list(node.values()))
        elif isinstance(value, list):
            waiting += reversed(cast("list[Any]", value))


def _require_allowed(
    database: duckdb.DuckDBPyConnection, where: str, node: Mapping[str, Any], schema: pa.Schema
) -> None:
    kind = node["class"]
    if kind not in _CLASSES:
        what = _BEYOND.get(kind, kind.lower())
        raise SpecError(f"{where}: looks beyond one sample: expected signals alone, got {what}. Leave it out.")
    if kind == "COLUMN_REF":
        name = ".".join(node["column_names"])
        known = {column.lower() for column in schema.names}
        if name.lower() not in known:
            close = difflib.get_close_matches(name.lower(), sorted(known), n=1)
            expected = close[0] if close else f"one of {', '.join(schema.names)}"
            raise SpecError(f"{where}: column {name} is unknown: expected {expected}. Correct the expression.")
    if kind == "FUNCTION":
        _require_repeatable(database, where, str(node["function_name"]).lower())


def _require_repeatable(database: duckdb.DuckDBPyConnection, where: str, name: str) -> None:
    rows = database.execute(
        "SELECT DISTINCT function_type, stability FROM duckdb_functions() WHERE lower(function_name) = ?", [name]
    ).fetchall()
    if not rows:
        raise SpecError(f"{where}: function {name} is unknown: expected one of DuckDB's. Correct the expression.")
    stabilities = {stability for kind, stability in rows if kind == "scalar"}
    if not stabilities:
        raise SpecError(
            f"{where}: {name} looks beyond one sample: expected a function of one row, got {rows[0][0]}. Leave it out."
        )
    if stabilities != {"CONSISTENT"} or name in _SESSION:
        raise SpecError(f"{where}: {name} does not always give the same answer. Use signals alone.")


def _first_line(error: duckdb.Error) -> str:
    return str(error).split("\n\nLINE")[0].split("\n")[0].strip().rstrip(".")
