"""The long commands that show progress: `up` and `ingest`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from typer import Exit

from . import client, containers, first_run, paths, show, system
from .client import IngestReport
from .errors import WorkshopError
from .system import Status, System

_Progress = Callable[[float, str], None]
_Index = Callable[[str, Sequence[client.Document], _Progress], Coroutine[Any, Any, IngestReport]]


def up(base: int) -> None:
    """Start the system, wait until it is ready, index the handbook, say where it is.

    Interrupted, it stops what it started; the next `up` goes on where this one was.
    """
    if (here := system.running()) is not None:
        show.console.print(f"Already running {here.where}.")
        show.console.print("`workshop status` shows it; `workshop down` stops it.")
        return
    paths.run_dir().mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(paths.run_dir() / "up.lock", timeout=0):
            _up(base)
    except Timeout:
        raise WorkshopError(
            "Another `workshop up` is starting the system right now.",
            "Wait for it, then see `workshop status`.",
        ) from None


def up_containers(base: int, *, step: str | None, dev: bool) -> None:
    """The same in containers. Another `step` than the running one moves the system on to it."""
    before = system.running()
    if before is not None and not isinstance(before, containers.Containers):
        show.console.print(f"Already running {before.where}. `workshop down` stops it.")
        return
    containers.engine()
    first_run.ensure_models()
    started = time.monotonic()
    try:
        here = containers.start(
            base, step=step, dev=dev, say=show.console.print, llm=first_run.llm()
        )
        if {"gateway", "ingestion_worker"} <= here.processes.keys():
            _index(here.url("gateway"), client.handbook(), client.ingest)
    except KeyboardInterrupt:
        if before is None:
            show.console.print("Interrupted: stopping what was started.")
            system.stop()
        raise
    _say_where(here, system.statuses(here), time.monotonic() - started)


def _up(base: int) -> None:
    first_run.check_disk()
    system.clear_leftovers()
    system.check_ports(base)
    first_run.ensure_models()
    started = time.monotonic()
    try:
        here = system.start(base, first_run.model_settings())
        statuses = _wait(here, started)
        handbook = client.handbook()
        can_index = all(s.ok for s in statuses if s.name in first_run.NEEDED)
        if handbook and can_index and not first_run.is_indexed(handbook):
            _index(here.url("ingestion"), handbook, first_run.index_handbook)
    except KeyboardInterrupt:
        show.console.print("Interrupted: stopping what was started.")
        system.stop()
        raise
    _say_where(here, statuses, time.monotonic() - started)


def _wait(here: System, started: float) -> list[Status]:
    with show.console.status("starting") as spinner:
        return system.wait_ready(
            here,
            progress=lambda now: spinner.update(
                show.start_progress(now, time.monotonic() - started)
            ),
        )


def _ingest(
    title: str, work: Callable[[_Progress], Coroutine[Any, Any, IngestReport]]
) -> IngestReport:
    """Run `work` with a progress bar; without a terminal, with a line each tenth."""
    if not show.console.is_terminal:
        tenths: set[int] = set()

        def line(done: float, _: str) -> None:
            if int(done * 10) not in tenths:
                tenths.add(int(done * 10))
                show.console.print(f"{title}: {done:.0%}")

        return asyncio.run(work(line))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[document]}"),
    )
    with Progress(*columns, console=show.console) as bar:
        task = bar.add_task(title, total=1.0, document="")
        return asyncio.run(
            work(lambda done, name: bar.update(task, completed=done, document=escape(name)))
        )


def _index(url: str, handbook: Sequence[client.Document], index: _Index) -> None:
    report = _ingest("indexing the handbook", lambda progress: index(url, handbook, progress))
    for name, reason in report.failed[:5]:
        show.errors.print(f"{name}: {reason}", style="yellow", markup=False)
    if report.failed:
        show.errors.print(
            f"{len(report.failed)} of {report.documents} pages are not indexed; "
            "`workshop down` and `workshop up` try them again."
        )


def _say_where(here: System, statuses: Sequence[Status], seconds: float) -> None:
    missing = [s for s in statuses if not s.ok]
    gateway = here.url(here.front)
    if missing:
        for status in missing:
            reason = status.reason or here.last_log_line(status.name) or status.state
            show.errors.print(f"{status.name} is not ready: {reason}", style="yellow", markup=False)
        show.errors.print(f"See `workshop logs {missing[0].name}` and `workshop status`.")
        raise Exit(1)
    show.console.print(f"Ready after {seconds:.1f} s.")
    show.console.print(f"  the page   {gateway}/")
    show.console.print(f"  the API    {gateway}/docs")
    show.console.print('  a question workshop ask "What is a circuit breaker?" --trace')
    show.console.print("  stop       workshop down")


def ingest(given: Sequence[Path], *, tags: tuple[str, ...], language: str | None) -> None:
    """Ingest files and folders with a progress bar; exit code 1 if any document failed."""
    here = system.require_running()
    documents = [
        client.Document(d.path, language=language, tags=tags) for d in client.find_documents(given)
    ]
    url = here.url(here.documents)
    report = _ingest("ingesting", lambda progress: client.ingest(url, documents, progress))
    new = report.documents - report.unchanged - len(report.failed)
    show.console.print(
        f"{new} indexed ({report.passages} passages), {report.unchanged} unchanged, "
        f"{len(report.failed)} failed."
    )
    for name, reason in report.failed:
        show.errors.print(f"{name}: {reason}", style="red", markup=False)
    if report.failed:
        raise Exit(1)
