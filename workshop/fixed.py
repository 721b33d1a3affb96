"""The twenty fixed questions, asked through the gateway, and their answers compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from . import client, paths, sync
from .errors import WorkshopError

COUNT = 20
TRIES = 3
"""A busy machine may miss the time of a stage; an answer without it proves nothing."""


class FixedAnswer(NamedTuple):
    """`passages` are the ids that the answer could draw on, in order."""

    id: str
    passages: tuple[str, ...]
    text: str


def fixed_questions(first: int = 1, last: int = COUNT) -> list[dict[str, str]]:
    """Rows of handbook/questions.jsonl that are asked after each step, numbered from 1."""
    if not 1 <= first <= last <= COUNT:
        raise WorkshopError(f"There is no range {first} to {last}.", f"It is 1 to {COUNT}.")
    with (paths.ROOT / "handbook" / "questions.jsonl").open(encoding="utf-8") as file:
        rows = [row for line in file if (row := json.loads(line)).get("fixed")]
    return rows[first - 1 : last]


def ask(
    gateway: str,
    first: int = 1,
    last: int = COUNT,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[FixedAnswer]:
    """One after the other. Raises `WorkshopError` for one that stays degraded."""
    return sync.wait(_ask(gateway, fixed_questions(first, last), progress))


async def _ask(
    gateway: str, questions: Sequence[dict[str, str]], progress: Callable[[int, int], None]
) -> list[FixedAnswer]:
    answers = []
    for number, row in enumerate(questions, 1):
        for _ in range(TRIES):
            answer = await client.answer(gateway, row["question"])
            if not answer["degraded"]:
                break
        else:
            raise WorkshopError(
                f"The answer to {row['id']} is degraded: {', '.join(answer['degraded'])} did not "
                "take part.",
                "See `workshop status`; ask again when every process is ready.",
            )
        passages = tuple(p for source in answer["sources"] for p in source["passages"])
        answers.append(FixedAnswer(row["id"], passages, answer["answer"]))
        progress(number, len(questions))
    return answers


def difference(before: Sequence[FixedAnswer], after: Sequence[FixedAnswer]) -> str:
    """The first difference in words; "" when passages, order and text are all equal."""
    if [answer.id for answer in before] != [answer.id for answer in after]:
        return (
            f"before holds {len(before)} answers and after {len(after)}, or in another order: "
            "ask the same questions both times."
        )
    for old, new in zip(before, after, strict=True):
        if old.passages != new.passages:
            place = next(
                (n for n, (a, b) in enumerate(zip(old.passages, new.passages)) if a != b),  # noqa: B905
                min(len(old.passages), len(new.passages)),
            )
            return (
                f"{old.id}: the passages differ from place {place + 1} on: "
                f"before {_at(old.passages, place)}, after {_at(new.passages, place)}."
            )
        if old.text != new.text:
            return f"{old.id}: same passages, another text: before {old.text!r}, after {new.text!r}"
    return ""


def _at(passages: Sequence[str], place: int) -> str:
    return passages[place] if place < len(passages) else "nothing"
