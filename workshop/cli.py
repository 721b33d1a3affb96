"""`workshop`: the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from . import paths
from .errors import WorkshopError

_HELP = """A question-answering system, taken apart into thirteen services.
Start it with `workshop up`, ask with `workshop ask "What is a circuit breaker?" --trace`,
look inside with `status`, `logs` and http://127.0.0.1:8000, stop it with `workshop down`.
"""

RUN, USE, LEARN = "Run the system", "Use it", "Learn with it"
BUILD = "Measure it, build its parts"

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(help="a process of `workshop status`", show_default=False)]


# -- run the system -----------------------------------------------------------------------


@app.command(rich_help_panel=RUN)
def doctor(
    in_containers: Annotated[
        bool, typer.Option("--containers", help="what `up --containers` needs")
    ] = False,
) -> None:
    """Check this machine: Python, disk, memory, ports, models, packages; or Docker."""
    from . import containers_doctor
    from . import doctor as checks
    from .show import console

    worst = 0
    for check in containers_doctor.run() if in_containers else checks.run():
        worst = max(worst, check.severity)
        console.print(check.line())
    if worst >= checks.FAIL:
        raise typer.Exit(1)


@app.command(rich_help_panel=RUN)
def up(
    port_base: Annotated[
        int,
        typer.Option(envvar="WORKSHOP_PORT_BASE", help="gateway's port; the others follow it"),
    ] = 8000,
    in_containers: Annotated[
        bool, typer.Option("--containers", help="with Docker, a container a service")
    ] = False,
    step: Annotated[
        str | None, typer.Option(help="the system as it stands at this lesson, 02 to 12")
    ] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="containers: publish every port, run the source tree")
    ] = False,
) -> None:
    """Start everything; the first time, bring in models and index the handbook."""
    from . import starting

    if in_containers:
        starting.up_containers(port_base, step=step, dev=dev)
    elif step or dev:
        raise WorkshopError("--step and --dev are for containers.", "Add --containers.")
    else:
        starting.up(port_base)


@app.command(rich_help_panel=RUN)
def down() -> None:
    """Stop everything that `up` started."""
    from . import system
    from .show import console

    with console.status("stopping") as spinner:
        stopped = system.stop(lambda left: spinner.update(f"stopping: {', '.join(left)}"))
    console.print("Stopped." if stopped else "Nothing was running.")


@app.command(rich_help_panel=RUN)
def status() -> None:
    """Show every process: ready or what is missing, address, pid, memory."""
    from . import show, system

    found = system.statuses(system.require_running())
    show.console.print(show.status_table(found))
    if not all(s.ok for s in found):
        raise typer.Exit(1)


@app.command(rich_help_panel=RUN)
def logs(
    name: Annotated[str | None, typer.Argument(help="one process; all without it")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until Ctrl-C")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="lines from the end")] = 20,
) -> None:
    """Show the last lines of the logs."""
    from . import log_view

    log_view.show(name, follow=follow, lines=lines)


@app.command(rich_help_panel=RUN)
def restart(name: Name) -> None:
    """Drain one process, stop it and start it again."""
    from . import system
    from .show import console

    here = system.require_running()
    started = time.monotonic()
    here.restart(name)
    with console.status(f"restarting {name}"):
        here.wait(name)
    console.print(f"{name} is ready again after {time.monotonic() - started:.1f} s.")


@app.command(rich_help_panel=RUN)
def stop(name: Name) -> None:
    """Drain one process and stop it; the others run on. `start` brings it back."""
    from . import learn, system
    from .show import console

    learn.Running(system.require_running()).stop(name)
    console.print(f"{name} is stopped. `workshop start {name}` brings it back.")


@app.command(rich_help_panel=RUN)
def start(name: Name) -> None:
    """Start one process that was stopped."""
    from . import system
    from .show import console

    here = system.require_running()
    here.start(name)
    with console.status(f"starting {name}"):
        here.wait(name)
    console.print(f"{name} is ready.")


@app.command(rich_help_panel=RUN)
def scale(
    name: Name,
    count: Annotated[int, typer.Argument(help="copies; 1 is how it was", show_default=False)],
) -> None:
    """Run copies of a service that owns no data, behind its own address."""
    from . import replicas
    from .show import console

    with console.status(f"starting {count} × {name}"):
        replicas.scale(name, count)
    console.print(f"{name}: {count} ready." if count > 1 else f"{name} is as it was.")


# -- use it -------------------------------------------------------------------------------


@app.command(rich_help_panel=USE)
def ask(
    question: Annotated[str, typer.Argument(show_default=False)],
    trace: Annotated[bool, typer.Option("--trace", help="draw the waterfall of stages")] = False,
    language: Annotated[
        str | None, typer.Option(help="language of the answer, en or pt; else the question's")
    ] = None,
) -> None:
    """Ask a question; the answer streams, with its citations."""
    import asyncio

    from . import client, show, system

    here = system.require_running()
    gateway = here.url(here.front)
    events = client.answer_events(gateway, question, language=language)
    asyncio.run(show.stream_answer(events, trace=trace))


@app.command(rich_help_panel=USE)
def search(
    query: Annotated[str, typer.Argument(show_default=False)],
    top: Annotated[int, typer.Option("--top", "-k", min=1, max=100, help="passages shown")] = 5,
    rerank: Annotated[bool, typer.Option(help="order them with the reranker")] = True,
) -> None:
    """Show the ranked passages and the lists that they came from."""
    import asyncio

    from . import client, show, system

    gateway = system.require_running().url("gateway")
    result = asyncio.run(client.search(gateway, query, top_k=top, rerank=rerank))
    show.console.print(show.hits_view(result))


@app.command(rich_help_panel=USE)
def ingest(
    path: Annotated[list[Path], typer.Argument(help="files or folders", show_default=False)],
    tag: Annotated[list[str] | None, typer.Option(help="tag of these documents")] = None,
    language: Annotated[str | None, typer.Option(help="en or pt; else detected")] = None,
) -> None:
    """Add your own documents: Markdown, text, HTML, PDF, DOCX."""
    from . import starting

    starting.ingest(path, tags=tuple(tag or ()), language=language)


@app.command(rich_help_panel=USE)
def call(
    name: Annotated[str, typer.Argument(help="a service", show_default=False)],
    path: Annotated[str, typer.Argument(help="for example /v1/search", show_default=False)],
    body: Annotated[str | None, typer.Argument(help="JSON to post; without it, GET")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="JSON pointers of what to show, as /hits/0/id")
    ] = None,
) -> None:
    """Call one service's API, past the gateway, and show what it answers."""
    from . import calls

    calls.show_call(name, path, body, tuple(only or ()))


@app.command(rich_help_panel=USE)
def demo(
    lesson: Annotated[
        str | None, typer.Argument(help="a lesson's number: the demo of its deck")
    ] = None,
) -> None:
    """An unattended tour of the system, or the demo of a lesson."""
    from . import demo as tour

    if lesson is None:
        tour.run()
    else:
        tour.run_lesson(lesson)


# -- learn with it ------------------------------------------------------------------------


@app.command(rich_help_panel=LEARN)
def check(
    number: Annotated[str, typer.Argument(help="a lesson, 05, or an exercise, 05.1")],
) -> None:
    """Run a lesson's checks on your my_services/, and its service's contract."""
    from . import learn

    learn.check(number)


@app.command(rich_help_panel=LEARN)
def progress() -> None:
    """Show the board: lessons, exercises that are green, the next step."""
    from . import board

    typer.echo(str(board.board()))


@app.command("catch-up", rich_help_panel=LEARN)
def catch_up(number: Annotated[str, typer.Argument(help="the lesson to start with")]) -> None:
    """Bring my_services/ to the start of a lesson; your files are renamed, kept."""
    from . import board, learn

    typer.echo(learn.describe(board.catch_up(number)))


@app.command(rich_help_panel=LEARN)
def bill(
    name: Annotated[list[str], typer.Argument(help="services", show_default=False)],
) -> None:
    """Measure what services cost as services: milliseconds, memory, bytes on the wire."""
    from . import learn

    typer.echo(str(learn.bill(*name)))


# -- measure it, build its parts ----------------------------------------------------------


def _delegate(name: str, module: str, panel: str, summary: str) -> None:
    """A command that lives in its own module, imported when it is called.

    The module has a Typer `app`, or a function `command`.
    """
    settings = {
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }

    @app.command(name, help=summary, rich_help_panel=panel, context_settings=settings)
    def call(context: typer.Context) -> None:
        from . import system

        if not system.has_module(module):
            raise WorkshopError(
                f"`workshop {name}` is not part of this copy of the workshop.",
                f"The module {module} is missing: get the whole repository.",
            )
        loaded = importlib.import_module(module)
        target = getattr(loaded, "app", None)
        if target is None:
            target = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            target.command()(loaded.command)
        code = target(args=context.args, prog_name=f"workshop {name}", standalone_mode=False)
        if isinstance(code, int) and code:
            raise typer.Exit(code)


_delegate(
    "evaluate",
    "workshop.evaluate",
    BUILD,
    "Quality: BM25, dense, hybrid and reranked side by side.",
)
_delegate("bench", "workshop.bench", BUILD, "Speed: the services against the monolith.")
_delegate("images", "workshop.images", BUILD, "Sizes, layers and build times of the images.")
_delegate("models", "workshop.models_cli", BUILD, "List, fetch and check the model files.")
_delegate(
    "train-reranker", "workshop.train_reranker", BUILD, "Train the cross-encoder from judged data."
)
_delegate(
    "build-lessons", "workshop.lessons", BUILD, "Write notebooks/ and solutions/ from lessons/."
)
_delegate("slides", "workshop.slides", BUILD, "Build the instructor's decks as HTML and PDF.")


@app.command(rich_help_panel=BUILD)
def openapi(
    name: Annotated[list[str] | None, typer.Argument(help="services; all without it")] = None,
) -> None:
    """Write the `openapi.json` of services from their code."""
    from services.chassis import openapi as documents

    for service in name or documents.service_names():
        if service not in documents.service_names():
            raise WorkshopError(
                f"There is no service named {service}.",
                f"Known: {', '.join(documents.service_names())}.",
            )
        target = documents.SERVICES / service / "openapi.json"
        target.write_bytes(documents.openapi_document(service))
        typer.echo(f"wrote services/{service}/openapi.json")


# -- the entry point ----------------------------------------------------------------------


def main() -> None:
    """Run the command line. Every failure ends as a sentence, never as a traceback."""
    sys.exit(_run())


def _run() -> int:
    try:
        code: Any = app(standalone_mode=False)
    except WorkshopError as error:
        from . import show

        show.problem(error)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("\nInterrupted.", err=True)
        return 130
    except BrokenPipeError:  # `workshop logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # wrong usage, Typer's own
            error.show()
            return int(error.exit_code)
        return _unexpected(error)
    return code if isinstance(code, int) else 0


def _unexpected(error: Exception) -> int:
    """Keep the details in a file for the maintainers; say one sentence to the person."""
    from . import show

    details = paths.logs_dir() / "workshop.log"
    try:
        details.parent.mkdir(parents=True, exist_ok=True)
        with open(details, "a") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} workshop {sys.argv[1:]}\n")
            traceback.print_exception(error, file=file)
        where = f"The details are in {details}. `workshop doctor` may find the cause."
    except OSError:
        where = "`workshop doctor` may find the cause."
    show.problem(WorkshopError(f"Unexpected: {type(error).__name__}: {error}", where))
    return 1


if __name__ == "__main__":
    main()
