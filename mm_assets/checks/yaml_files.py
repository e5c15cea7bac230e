"""YAML files that people edit: read safely, with the line of every entry, so that an error can point at it."""

from pathlib import Path
from typing import Any, TypeAlias

import yaml

#: Where an entry sits in its document (keys and list positions from the top) -> its line, counted from 1.
Lines: TypeAlias = dict[tuple[str | int, ...], int]

#: Deeper and larger documents are refused: aliases can make a short file endless.
MAX_DEPTH = 32
MAX_ENTRIES = 100_000


def parse_yaml(text: str, where: str, error: type[Exception]) -> tuple[Any, Lines]:
    """The value of a YAML document and the line of each of its entries.

    Args:
        text: The document.
        where: What to call it in an error.
        error: Raised if the document is not YAML, holds a tag, or names a key twice.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            lines: Lines = {}
            _collect_lines(node, (), lines, where, error)
            return (None if node is None else loader.construct_document(node)), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise error(f"{where}: line {line}: is not valid YAML: {problem.problem}. Correct that line.") from problem
    except yaml.YAMLError as problem:
        said = " ".join(str(problem).split())
        raise error(f"{where}: is not valid YAML: {said}. Correct the file.") from problem
    except RecursionError as problem:
        raise error(f"{where}: is nested deeper than {MAX_DEPTH} levels. Correct the file.") from problem
    except error:
        raise
    except (ValueError, LookupError) as problem:
        # The values of a document whose syntax is right: a date of month 13, a number of 5,000 digits.
        raise error(f"{where}: has a value that cannot be read: {problem}. Correct the file.") from problem


def parse_yaml_bytes(data: bytes, where: str, error: type[Exception]) -> tuple[Any, Lines]:
    """``parse_yaml`` of the bytes of a file; bytes that are not UTF-8 raise ``error`` too."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{where}: is not UTF-8: byte {problem.start}. Save the file as UTF-8.") from problem
    return parse_yaml(text, where, error)


def read_yaml(path: Path, error: type[Exception]) -> tuple[Any, Lines]:
    """``parse_yaml_bytes`` of a file; a file that is missing raises ``error`` too."""
    return parse_yaml_bytes(read_file(path, error), str(path), error)


def read_file(path: Path, error: type[Exception]) -> bytes:
    """The bytes of ``path``; a file that cannot be read raises ``error``."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem}.") from problem


def line_of(place: tuple[str | int, ...], lines: Lines) -> int:
    """The line of the entry at ``place``, or of the closest entry around it that was written."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _collect_lines(
    node: yaml.Node | None, place: tuple[str | int, ...], lines: Lines, where: str, error: type[Exception]
) -> None:
    if node is None:
        return
    lines.setdefault(place, node.start_mark.line + 1)
    if len(place) > MAX_DEPTH:
        raise error(f"{where}: line {node.start_mark.line + 1}: is nested deeper than {MAX_DEPTH} levels.")
    if len(lines) > MAX_ENTRIES:
        raise error(f"{where}: line {node.start_mark.line + 1}: has more than {MAX_ENTRIES} entries.")
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _collect_lines(item, (*place, position), lines, where, error)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            below = (*place, str(key.value))
            if below in lines:
                raise error(f"{where}: line {key.start_mark.line + 1}: {key.value} is given twice. Keep one of them.")
            lines[below] = key.start_mark.line + 1
            _collect_lines(item, below, lines, where, error)
