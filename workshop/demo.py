"""`workshop demo`: a short tour that needs nobody at the keyboard."""

from __future__ import annotations

import asyncio

from . import client, show, system
from .system import System

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
