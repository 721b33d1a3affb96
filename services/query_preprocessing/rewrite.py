"""A follow-up made standalone with the questions before it, without a language model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .intent import PATTERNS, content_words, follows_up
from .text import fold

_WORD = re.compile(r"[^\W_]+(?:[-_./'=][^\W_]+)*")

Standalone = Callable[[str, str, Sequence[str]], tuple[str, str]]
"""(question, language, earlier questions) → (the question with its subject, the subject)."""


def topic(question: str, language: str) -> str:
    """The part of a question from its first to its last content word.

    "What does Conway's law say?" → "Conway's law say". Function words inside stay, so that the
    phrase can be read.
    """
    stopwords = PATTERNS[language].stopwords
    matches = list(_WORD.finditer(question))
    telling = [match for match in matches if fold(match[0]) not in stopwords]
    if not telling:
        return ""
    return question[telling[0].start() : telling[-1].end()]


def standalone(question: str, language: str, history: Sequence[str]) -> tuple[str, str]:
    """The question with the subject of the conversation, and that subject; "" when there is none.

    `history` holds earlier questions, oldest first. When the last one is a follow-up itself, the
    one before it is taken along, at most three back.
    """
    subjects: list[str] = []
    for earlier in reversed(history[-3:]):
        found = topic(earlier, language)
        if found:
            subjects.insert(0, found)
        if found and not follows_up(earlier, language):
            break
    seen = set(content_words(question, language))
    subject = "; ".join(s for s in subjects if not set(content_words(s, language)) <= seen)
    if not subject:
        return question, ""
    return f"{question.rstrip()} ({subject})", subject
