"""What decks show of other files, filled in and compared: code, outputs, tables, figures.

    <!-- from services/x/domain.py#function -->             before a fenced block
    <!-- from services/x/domain.py#function "a" .. "b" -->  only the lines from a to b
    <!-- from notebooks/05_x.ipynb#function -->            the stub that the learner fills in
    <!-- output solutions/05_x.ipynb "A 123" .. "E 1/63" -->    lines that a cell printed
    <!-- rows README.md "stage" "BM25" "hybrid" -->         a table's head and some of its rows
    <!-- figure reports/x.json#/stages/stage=bm25/MRR as .3f -->0.806<!-- end -->
    <!-- demo -->                                           the deck's own demo, as commands

`fill` writes what the files say now. A deck that is not equal to its filled self is out of date.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

from . import paths
from .decks import Step
from .errors import WorkshopError

_BLOCK = re.compile(r"^<!-- (from|output|rows|demo)\b(.*?) ?-->$")
_FIGURE = re.compile(r"<!-- figure (.+?)#(/.+?) as (\S+) -->(.*?)<!-- end -->")
_FENCE = re.compile(r"^(`{3,})(\w*)$")
_LANGUAGE = {".py": "python", ".toml": "toml", ".json": "json", ".sh": "bash", ".ipynb": "python"}
_HIDDEN = "nbval-ignore-output"
_WIDTH = 80


def fill(text: str, number: str = "", steps: tuple[Step, ...] = ()) -> str:
    """The text with every marked block and figure as the files have it now.

    `number` and `steps` are the lesson's and its demo's.

    Raises `WorkshopError` for a marker that is not understood or that points at nothing.
    """
    lines = text.splitlines()
    done: list[str] = []
    while lines:
        line = lines.pop(0)
        done.append(line)
        if marker := _BLOCK.match(line.strip()):
            block, language = _content(marker[1], marker[2].strip(), number, steps)
            old = _take_block(lines, table=marker[1] == "rows")
            if marker[1] == "rows":
                done += ["", *block]
            else:
                ticks, said = old or ("```", "")
                done += [f"{ticks}{said or language}", *block, ticks]
    return _FIGURE.sub(_figure, "\n".join(done) + "\n")


def _take_block(lines: list[str], *, table: bool) -> tuple[str, str] | None:
    """Remove the block that stands at the start of `lines`: its fence's ticks and language."""
    start = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    if start == len(lines):
        return None
    if table:
        if lines[start].startswith("|"):
            del lines[:start]
            while lines and lines[0].startswith("|"):
                lines.pop(0)
        return None
    if (fence := _FENCE.match(lines[start])) is None:
        return None
    end = next((n for n in range(start + 1, len(lines)) if lines[n] == fence[1]), None)
    if end is None:
        raise WorkshopError(f"A block that begins with {fence[0]} is never closed.")
    del lines[: end + 1]
    return fence[1], fence[2]


def strip(text: str) -> str:
    """The text without its markers: what is shown."""
    kept = [line for line in text.splitlines() if not _BLOCK.match(line.strip())]
    return _FIGURE.sub(lambda figure: figure[4], "\n".join(kept) + "\n")


def unmarked(text: str) -> str:
    """What no marker covers: the text without marked blocks and figures."""
    lines, kept = text.splitlines(), []
    while lines:
        line = lines.pop(0)
        if marker := _BLOCK.match(line.strip()):
            _take_block(lines, table=marker[1] == "rows")
        else:
            kept.append(line)
    return _FIGURE.sub("", "\n".join(kept) + "\n")


# -- what a marker names --------------------------------------------------------------------


def _content(kind: str, rest: str, number: str, steps: tuple[Step, ...]) -> tuple[list[str], str]:
    """The lines of a block, and the language of its fence."""
    if kind == "demo":
        return [
            f"workshop demo {number}",
            *(line for step in steps for line in _wrap(step)),
        ], "bash"
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise WorkshopError(f"The marker `{kind} {rest}` has an open quotation mark.") from error
    if not words:
        raise WorkshopError(f"The marker `{kind}` names no file.")
    place, _, name = words[0].partition("#")
    path, patterns = _path(place), words[1:]
    if kind == "rows":
        return _rows(path, patterns, rest), ""
    if kind == "output":
        return _between(_outputs(path, patterns, rest), patterns, rest), "text"
    found = _definition(path, name) if name else _read(path).splitlines()
    return _between(found, patterns, rest), _LANGUAGE.get(path.suffix, "text")


def _wrap(step: Step) -> list[str]:
    """The step as a comment, in as many lines as a slide needs for it."""
    return textwrap.wrap(
        f"workshop {step.run}",
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="#     ",
        break_on_hyphens=False,
    )


def _path(place: str) -> Path:
    path = (paths.ROOT / place).resolve()
    if not path.is_relative_to(paths.ROOT) or not path.is_file():
        raise WorkshopError(f"A marker names {place}, which is no file of the repository.")
    return path


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _definition(path: Path, name: str) -> list[str]:
    """The lines of a function, class or constant, without docstring and solution marks.

    A notebook's function keeps its docstring: in a stub it is what says what to write.
    """
    notebook = path.suffix == ".ipynb"
    for source in _cells(path) if notebook else [_read(path)]:
        if (node := _find(source, name)) is not None:
            break
    else:
        raise WorkshopError(f"{path.relative_to(paths.ROOT)} defines no {name}.")
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    docstring = range(0)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
        ast.get_docstring(node) is not None and len(node.body) > 1 and not notebook
    ):
        docstring = range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    lines = [
        line
        for number, line in enumerate(source.splitlines(), 1)
        if first <= number <= node.end_lineno
        and number not in docstring
        and not re.match(r"\s*# (BEGIN|END) SOLUTION", line)
    ]
    return textwrap.dedent("\n".join(lines)).splitlines()


def _cells(notebook: Path) -> list[str]:
    cells = json.loads(_read(notebook))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _find(source: str, name: str) -> Any:
    """The definition of a (dotted) name; None if there is none."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    node: Any = compile(source, "source", "exec", flags)
    for part in name.split("."):
        node = next((n for n in getattr(node, "body", []) if part in _names(n)), None)
    return node


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _between(lines: list[str], patterns: list[str], marker: str) -> list[str]:
    """The lines from the first that holds one pattern to the next that holds the other."""
    match patterns:
        case []:
            return lines
        case [first]:
            last = first
        case [first, "..", last]:
            pass
        case _:
            raise WorkshopError(
                f"The marker `{marker}` is not understood.",
                'Write "first line" .. "last line", or one pattern for one line.',
            )
    start = next((n for n, line in enumerate(lines) if first in line), None)
    if start is None:
        raise WorkshopError(f"The marker `{marker}`: no line holds {first!r}.")
    end = next((n for n in range(start, len(lines)) if last in lines[n]), None)
    if end is None:
        raise WorkshopError(f"The marker `{marker}`: no line after it holds {last!r}.")
    return textwrap.dedent("\n".join(lines[start : end + 1])).splitlines()


def _outputs(path: Path, patterns: list[str], marker: str) -> list[str]:
    """What the first cell that printed the pattern printed. Only outputs that nbval compares."""
    if not patterns:
        raise WorkshopError(f"The marker `{marker}` needs a piece of the output.")
    for cell in json.loads(_read(path))["cells"]:
        text = "".join(_text(output) for output in cell.get("outputs", []))
        if patterns[0] in text:
            if _HIDDEN in cell["metadata"].get("tags", []):
                raise WorkshopError(
                    f"The marker `{marker}`: that cell's output is not compared by the tests.",
                    "Show the output of a cell without the tag nbval-ignore-output.",
                )
            return [line.rstrip() for line in text.splitlines()]
    raise WorkshopError(f"The marker `{marker}`: no cell printed {patterns[0]!r}.")


def _text(output: dict[str, Any]) -> str:
    found = output.get("text") or output.get("data", {}).get("text/plain", "")
    return "".join(found) if isinstance(found, list) else str(found)


def _rows(path: Path, names: list[str], marker: str) -> list[str]:
    """Head and chosen rows of the table whose first column has the first name as its head."""
    tables: list[list[str]] = [[]]
    for line in _read(path).splitlines():
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            tables.append([])
    wanted = [table for table in tables if table and names and _cell(table[0]) == names[0]]
    if not wanted:
        raise WorkshopError(f"The marker `{marker}`: no table begins with that column.")
    rows = {_cell(line): line for line in wanted[0][2:]}
    for name in names[1:]:
        if name not in rows:
            raise WorkshopError(f"The marker `{marker}`: there is no row {name!r}.")
    return wanted[0][:2] + [rows[name] for name in names[1:] or rows]


def _cell(line: str) -> str:
    return line.split("|")[1].strip()


def _figure(marker: re.Match[str]) -> str:
    path, pointer, form = _path(marker[1]), marker[2], marker[3]
    value = at(json.loads(_read(path)), pointer, marker[1])
    try:
        shown = str(value) if form == "text" else format(value, form)
    except (TypeError, ValueError) as error:
        raise WorkshopError(f"The figure {marker[1]}#{pointer}: {error}.") from error
    return f"<!-- figure {marker[1]}#{pointer} as {form} -->{shown}<!-- end -->"


def at(document: Any, pointer: str, name: str = "the document") -> Any:
    """The value at a JSON pointer (RFC 6901). In a list, `key=value` finds the entry that has it.

    Raises `WorkshopError` if there is none.
    """
    value = document
    for step in pointer[1:].split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        key, equals, wanted = step.partition("=")
        try:
            if isinstance(value, list) and equals:
                value = next(entry for entry in value if str(entry[key]) == wanted)
            else:
                value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError, ValueError, StopIteration) as error:
            raise WorkshopError(f"{name} has nothing at {pointer}: {step} is not there.") from error
    return value
