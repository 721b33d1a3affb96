"""The long commands that show progress: `up` and `ingest`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from typer import Exit

from . import client, first_run, paths, show, system
from .errors import WorkshopError
from .system import Status, System


def up(base: int) -> None:
    """Start the system, wait until it is ready, index the handbook, say where it is.

    Interrupted, it stops what it started; the next `up` goes on where this one was.
    """
    if (here := system.running()) is not None:
        show.console.print(f"Already running at {here.url('gateway')} (supervisor pid {here.pid}).")
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
            _index(here, handbook)
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


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[document]}"),
        console=show.console,
    )


def _index(here: System, handbook: Sequence[client.Document]) -> None:
    with _bar() as bar:
        task = bar.add_task("indexing the handbook", total=1.0, document="")
        report = asyncio.run(
            first_run.index_handbook(
                here.url("ingestion"),
                handbook,
                lambda done, name: bar.update(task, completed=done, document=name),
            )
        )
    for name, reason in report.failed[:5]:
        show.errors.print(f"{name}: {reason}", style="yellow", markup=False)
    if report.failed:
        show.errors.print(
            f"{len(report.failed)} of {report.documents} pages are not indexed; "
            "`workshop down` and `workshop up` try them again."
        )


def _say_where(here: System, statuses: Sequence[Status], seconds: float) -> None:
    missing = [s for s in statuses if not s.ok]
    gateway = here.url("gateway")
    if missing:
        for status in missing:
            reason = status.reason or system.last_log_line(status.name) or status.state
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
    with _bar() as bar:
        task = bar.add_task("ingesting", total=1.0, document="")
        report = asyncio.run(
            client.ingest(
                here.url("ingestion"),
                documents,
                lambda done, name: bar.update(task, completed=done, document=name),
            )
        )
    new = report.documents - report.unchanged - len(report.failed)
    show.console.print(
        f"{new} indexed ({report.passages} passages), {report.unchanged} unchanged, "
        f"{len(report.failed)} failed."
    )
    for name, reason in report.failed:
        show.errors.print(f"{name}: {reason}", style="red", markup=False)
    if report.failed:
        raise Exit(1)
