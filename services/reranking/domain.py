"""What both engines share: the deadline, the ranking, the scale. No web framework."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class ModelNotUsable(Exception):
    """The model folder is missing, incomplete or of another kind; the message says which."""


class Engine(Protocol):
    """Scores passages for a query. Called from one thread at a time."""

    kind: str
    model: str

    def score(self, query: str, texts: Sequence[str], time_left: TimeLeft) -> list[float | None]:
        """A score in 0..1 a text, higher is better; None for those there was no time for."""
        ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """A text's place in the request, and its score (0.0 where there was no time)."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Best first; texts that were not scored follow in the order they came in."""

    results: list[Ranked]
    ranked: int

    @property
    def complete(self) -> bool:
        return self.ranked == len(self.results)


class TimeLeft:
    """A deadline that learns how long a token takes, and so knows what can still be done.

    `seconds` is all there is; `per_token` comes from earlier requests (see `Pace`).
    """

    def __init__(
        self,
        seconds: float,
        pace: Pace | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._at = clock() + seconds
        self._pace = pace or Pace()

    @property
    def seconds(self) -> float:
        return self._at - self._clock()

    def allows(self, tokens: int) -> bool:
        """Whether a run of so many tokens would end in time."""
        return self.seconds > tokens * self._pace.seconds_per_token

    def spent(self, tokens: int, seconds: float) -> None:
        self._pace.learn(tokens, seconds)


class Pace:
    """Seconds that the model takes for a token: a moving average, zero until something ran."""

    def __init__(self) -> None:
        self.seconds_per_token = 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        now = seconds / max(tokens, 1)
        old = self.seconds_per_token
        self.seconds_per_token = now if old == 0.0 else 0.8 * old + 0.2 * now


def rank(engine: Engine, query: str, texts: Sequence[str], time_left: TimeLeft) -> Ranking:
    """Order `texts` by relevance to `query`, as far as the time allows."""
    scores = engine.score(query, texts, time_left)
    done = [Ranked(index, score) for index, score in enumerate(scores) if score is not None]
    rest = [Ranked(index, 0.0) for index, score in enumerate(scores) if score is None]
    done.sort(key=lambda item: (-item.score, item.index))
    return Ranking(done + rest, len(done))


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))
