"""`workshop logs`: the JSON lines of the services in a form for people."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TextIO

from rich.text import Text

from . import containers, paths
from . import show as terminal
from .errors import WorkshopError

_LEVELS = {"error": "red", "critical": "red", "warning": "yellow"}
_WIDEST = "context_aggregation"
_NOT_SHOWN = ("event", "level", "timestamp", "service", "trace_id", "span_id", "exception")


def show(name: str | None, *, follow: bool, lines: int) -> None:
    """The last `lines` lines of one log, or of each; with `follow`, new ones until Ctrl-C."""
    here = containers.running()
    if here is not None:
        for key, line in here.logs(name, follow=follow, lines=lines):
            terminal.console.print(show_line(key, line, len(name or _WIDEST)), soft_wrap=True)
        return
    found = {path.stem: path for path in sorted(paths.logs_dir().glob("*.log"))}
    if name is not None and name not in found:
        raise WorkshopError(
            f"There is no log of {name}.",
            f"Known: {', '.join(found)}." if found else "Start the system with `workshop up`.",
        )
    chosen = {name: found[name]} if name else found
    width = max((len(key) for key in chosen), default=0)
    tails = {key: Tail(path, lines) for key, path in chosen.items()}
    while True:
        for key, tail in tails.items():
            for line in tail.read():
                terminal.console.print(show_line(key, line, width), soft_wrap=True)
        if not follow:
            return
        time.sleep(0.3)


class Tail:
    """Reads a growing log, first its last `lines` lines, then what was added since."""

    def __init__(self, path: Path, lines: int) -> None:
        self.path = path
        self.lines: int | None = lines
        self.file: TextIO | None = None

    def read(self) -> list[str]:
        if self.file is None:
            self.file = open(self.path, encoding="utf-8", errors="replace")  # noqa: SIM115
        if self.path.stat().st_size < self.file.tell():  # rotated: emptied in place
            self.file.seek(0)
        found = [line for line in self.file.read().splitlines() if line.strip()]
        if self.lines is not None:
            found, self.lines = found[len(found) - min(self.lines, len(found)) :], None
        return found


def show_line(name: str, line: str, width: int) -> Text:
    """`name  time  event key=value …`; a line that is not JSON goes through as it is."""
    text = Text(f"{name:<{width}}  ", style="cyan")
    try:
        entry = json.loads(line)
        event = entry["event"]
    except (ValueError, KeyError, TypeError):
        return text.append(line, style="none")
    text.append(str(entry.get("timestamp", ""))[11:19] + "  ", style="dim")
    text.append(str(event), style=_LEVELS.get(str(entry.get("level")), "none"))
    for key, value in entry.items():
        if key not in _NOT_SHOWN:
            text.append(f" {key}=", style="dim").append(str(value), style="none")
    if entry.get("exception"):
        text.append("\n" + str(entry["exception"]), style="dim")
    return text
