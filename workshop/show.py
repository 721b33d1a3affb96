"""How answers, passages, traces and tables look on a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .errors import WorkshopError
from .system import Status

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

_STATUS_STYLE = {"ok": "green", "degraded": "yellow", "skipped": "dim", "failed": "red"}
_WATERFALL_WIDTH = 40


def problem(error: WorkshopError) -> None:
    errors.print(Text(error.what, style="bold red"))
    if error.way_out:
        errors.print(Text(error.way_out))


def status_table(statuses: Iterable[Status]) -> RenderableType:
    """One line a process; under them, what is missing where something is."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("service", "state", "address", "pid", "memory", "restarts"):
        right = column in ("pid", "memory", "restarts")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    notes = []
    for s in sorted(statuses, key=lambda s: s.port or 99999):
        table.add_row(
            s.name,
            _state(s),
            s.url.partition("://")[2],
            str(s.pid or ""),
            f"{s.memory / 1e6:.0f} MB" if s.memory else "",
            str(s.restarts or ""),
        )
        if s.reason:
            notes.append(Text(f"{s.name}: {s.reason}", style="yellow"))
        if s.replaced:
            notes.append(Text(f"{s.name} is replaced, it runs {s.runs}"))
    return Group(table, *notes)


def _state(status: Status) -> Text:
    if status.state == "running":
        if status.failed:
            return Text("not ready", style="red")
        if status.ready is False:
            return Text("starting", style="yellow")
        return Text("ready" if status.ready else "running", style="green")
    if status.state == "waiting":
        return Text("crashed", style="red")
    return Text(status.state, style="yellow")


def start_progress(statuses: Sequence[Status], seconds: float) -> Text:
    """One line while the system starts: how many are ready, and which are not."""
    waiting = [s.name for s in statuses if not s.ok]
    text = Text(f"{len(statuses) - len(waiting)} of {len(statuses)} ready, {seconds:.0f} s")
    if waiting:
        text.append("  waiting for " + ", ".join(waiting), style="dim")
    return text


async def stream_answer(
    events: AsyncIterator[tuple[str, dict[str, Any]]], *, trace: bool
) -> dict[str, Any]:
    """Show an answer while it comes; give the final answer document.

    On a terminal the text grows in place. Elsewhere (a pipe, a file) only the end is written.
    """
    answer: dict[str, Any] | None = None
    text, stage = "", "asking"
    with Live(console=console, refresh_per_second=12, transient=True) as live:
        async for event, data in events:
            if event == "stage":
                stage = str(data.get("stage"))
            elif event == "token":
                text += str(data.get("text", ""))
            elif event == "answer":
                answer = data
            live.update(_growing(text, stage))
            await asyncio.sleep(0)
    if answer is None:
        raise WorkshopError(
            "The stream ended before the answer.", "See `workshop logs orchestrator`."
        )
    console.print(answer_view(answer))
    if trace:
        console.print(waterfall(answer.get("timings") or []))
    return answer


def _growing(text: str, stage: str) -> RenderableType:
    note = Text(f"… {stage}", style="dim")
    return Group(Text(text), note) if text else note


def answer_view(answer: dict[str, Any]) -> RenderableType:
    """The answer, its citations, and what the person should know about it."""
    parts: list[RenderableType] = [Markdown(str(answer.get("answer") or ""))]
    citations = answer.get("citations") or []
    if citations:
        parts.append(Text())
    for citation in citations:
        where = str(citation.get("title") or citation.get("document") or "")
        if citation.get("heading"):
            where += f" — {citation['heading']}"
        line = Text(f"[{citation.get('number')}] ", style="bold")
        line.append(where, style="cyan").append(f"  {citation.get('id')}", style="dim")
        parts.append(line)
    notes = []
    if answer.get("suggestion"):
        notes.append(f"Did you mean: {answer['suggestion']}")
    if answer.get("degraded"):
        notes.append(f"Degraded: {', '.join(answer['degraded'])} did not take part.")
    if answer.get("kind") == "extractive":
        notes.append("Sentences taken from the sources; no text was generated.")
    if answer.get("groundedness") is not None and answer.get("kind") == "generated":
        notes.append(f"Groundedness {float(answer['groundedness']):.2f}")
    if notes:
        parts += [Text(), *(Text(note, style="yellow") for note in notes)]
    return Group(*parts)


def waterfall(timings: Sequence[dict[str, Any]]) -> RenderableType:
    """Stages as bars over time, from `timings` ({stage, start_ms, ms, status})."""
    if not timings:
        return Text("The answer came without timings.", style="dim")
    total = max((float(t["start_ms"]) + float(t["ms"]) for t in timings), default=0.0) or 1.0
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column(f"0 to {total:.0f} ms", no_wrap=True, min_width=_WATERFALL_WIDTH)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for timing in timings:
        status = str(timing.get("status", "ok"))
        before, length = bar(float(timing["start_ms"]), float(timing["ms"]), total)
        style = _STATUS_STYLE.get(status, "green")
        table.add_row(
            str(timing["stage"]),
            Text(" " * before + "█" * length, style=style),
            f"{float(timing['ms']):.1f}",
            Text("" if status == "ok" else status, style=style),
        )
    return Padding(table, (1, 0, 0, 0))


def bar(
    start: float, length: float, total: float, width: int = _WATERFALL_WIDTH
) -> tuple[int, int]:
    """(blanks, blocks) of one bar; at least one block, never beyond `width`."""
    before = min(int(start / total * width), width - 1)
    return before, max(1, min(round(length / total * width), width - before))


def hits_view(result: dict[str, Any]) -> RenderableType:
    """Ranked passages with the lists that they came from."""
    hits = result.get("hits") or []
    if not hits:
        return Text("Nothing was found.")
    parts: list[RenderableType] = []
    for rank, hit in enumerate(hits, start=1):
        passage = hit["passage"]
        title = Text(f"{rank:2d}. ", style="bold")
        title.append(str(passage.get("title", "")), style="bold")
        if passage.get("heading"):
            title.append(f" — {passage['heading']}")
        title.append(f"  {hit['id']}  ", style="dim").append(f"{float(hit['score']):.4f}")
        lists = [f"{name} {p['rank']}." for name, p in (hit.get("provenance") or {}).items() if p]
        text = " ".join(str(passage.get("text", "")).split())
        excerpt = text if len(text) <= 160 else text[:160].rsplit(" ", 1)[0] + " …"
        parts += [title, Padding(Text(excerpt), (0, 0, 0, 4))]
        if lists:
            parts.append(Padding(Text("ranks: " + ", ".join(lists), style="dim"), (0, 0, 0, 4)))
    if result.get("degraded"):
        parts.append(Text(f"Degraded: {', '.join(result['degraded'])}", style="yellow"))
    return Group(*parts)
