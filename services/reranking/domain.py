"""What both engines share: the deadline, the ranking, the scale. No web framework."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
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

    def _room(self) -> float:
        """Tokens of a run that would end in time."""
        seconds, pace = self.seconds, self._pace.seconds_per_token
        if seconds <= 0:
            return 0.0
        return seconds / pace if pace else math.inf

    def runs(self, lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
        """Rows of `lengths` (in tokens) in the order given, as long as there is time: batches of at
        most `batch_tokens` padded tokens, and no larger than what can be done. Each is to be run
        before the next is asked for: that is how long it took.
        """
        at = 0
        while at < len(lengths):
            room = self._room()
            if lengths[at] > room:
                if at == 0:
                    self._pace.doubt()
                return
            rows, width = [at], lengths[at]
            for row in range(at + 1, len(lengths)):
                wider = max(width, lengths[row])
                if wider * (len(rows) + 1) > min(room, batch_tokens):
                    break
                rows.append(row)
                width = wider
            began = self._clock()
            yield rows
            self._pace.learn(width * len(rows), self._clock() - began)
            at += len(rows)


class Pace:
    """Seconds that the model takes for a token: a moving average, zero until something ran."""

    def __init__(self) -> None:
        self.seconds_per_token = 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        now = seconds / max(tokens, 1)
        old = self.seconds_per_token
        self.seconds_per_token = now if old == 0.0 else 0.8 * old + 0.2 * now

    def doubt(self) -> None:
        """It let nothing run, so it cannot be measured. It may be that of a moment in which others
        had the processors: without this nothing would ever run again."""
        self.seconds_per_token *= 0.8


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
