"""`workshop demo`: a tour, or the demo of a lesson's deck. Nobody is needed at the keyboard."""

from __future__ import annotations

import asyncio
import shlex

from . import client, decks, replicas, show, system
from .decks import Deck
from .errors import WorkshopError
from .system import System

COMMANDS = ("ask", "bill", "call", "images", "scale", "search", "start", "status", "stop")
"""What a step may run: commands that end by themselves and leave no data behind."""

QUESTIONS = (
    ("A question in English", "When does a circuit breaker open?"),
    ("A question in Portuguese", "Quais são os quatro tipos de microsserviços?"),
)
DEGRADED = "What is reciprocal rank fusion?"


def run() -> None:
    """Two questions with their traces, then one while reranking is stopped. Restores it."""
    here = system.require_running()
    for title, question in QUESTIONS:
        _ask(here, title, question)
    show.console.rule("Without reranking")
    show.console.print("Stopping reranking. The answer goes on in fused order, and says so.")
    here.stop("reranking")
    try:
        _ask(here, "The same system, one part gone", DEGRADED)
    finally:
        here.start("reranking")
    with show.console.status("reranking comes back"):
        here.wait("reranking")
    show.console.print("Reranking is back. `workshop status` shows every process.")


def _ask(here: System, title: str, question: str) -> None:
    show.console.rule(title)
    show.console.print(f"> {question}", style="bold", markup=False)
    events = client.answer_events(here.url("gateway"), question)
    asyncio.run(show.stream_answer(events, trace=True))


def run_lesson(number: str) -> None:
    """The steps of a lesson's demo, one after the other: the real commands, and what to look at.

    A step that fails ends it. What it stopped or copied is as it was again, whatever happens.
    """
    here = system.require_running()
    deck = decks.find(number)
    check_steps(deck)
    try:
        for place, step in enumerate(deck.front.demo, 1):
            show.console.rule(f"{place} of {len(deck.front.demo)}", align="left")
            show.console.print(step.look, markup=False)
            show.console.print(f"$ workshop {step.run}", style="bold", markup=False, soft_wrap=True)
            show.console.print()
            if bool(_run(step.run)) != step.fails:
                raise WorkshopError(
                    f"Step {place} of the demo {'went through' if step.fails else 'failed'}: "
                    f"workshop {step.run}",
                    "See `workshop status`; then run the demo again.",
                )
    finally:
        _bring_back(here, deck)
    show.console.rule(f"That was lesson {deck.number}'s demo", align="left")


def check_steps(deck: Deck) -> None:
    """Raises `WorkshopError` for a step that is no command of a demo."""
    for step in deck.front.demo:
        try:
            words = shlex.split(step.run)
        except ValueError as error:
            raise WorkshopError(f"slides/{deck.path.name}: {error} in {step.run!r}.") from error
        if not words or words[0] not in COMMANDS:
            raise WorkshopError(
                f"slides/{deck.path.name}: a demo cannot run {step.run!r}.",
                f"It can run {', '.join(COMMANDS)}.",
            )


def _run(command: str) -> int:
    """What `workshop COMMAND` does, without a new process for each step."""
    from .cli import app

    try:
        code = app(args=shlex.split(command), prog_name="workshop", standalone_mode=False)
    except WorkshopError as error:
        show.problem(error)
        return 1
    except Exception as error:
        if not hasattr(error, "format_message"):  # wrong usage, Typer's own
            raise
        show.problem(WorkshopError(error.format_message()))
        return 2
    return code if isinstance(code, int) else 0


def _bring_back(here: System, deck: Deck) -> None:
    """Start what the demo's steps stopped and nobody started; take away their copies."""
    for step in deck.front.demo:
        words = shlex.split(step.run)
        if words[0] == "scale" and here.refresh().processes.get(words[1], {}).get("replaced"):
            replicas.scale(words[1], 1)
        if words[0] == "stop":
            state = here.refresh().processes.get(words[1], {}).get("state")
            if state not in ("running", None):
                here.start(words[1])
                here.wait(words[1])
                show.console.print(f"{words[1]} is back.")
