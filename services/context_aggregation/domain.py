"""From ranked passages to a numbered context that fits a token budget.

No web framework, no network. The steps, in order: drop near-duplicates, drop a passage's twin in
another language, score sentences against the query, choose the best that fit, merge neighbours,
order, number, and count with the model's own tokenizer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, Protocol

from .segments import Unit, below, join, units
from .terms import fold, terms, words
from .tokenizer import Tokenizer

Order = Literal["best_first", "edges"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a context is built. Each step can be switched off."""

    duplicates: bool = True
    duplicate_similarity: float = 0.8
    twins: bool = True
    extract: bool = True
    merge: bool = True
    headings: bool = True
    order: Order = "best_first"
    max_passages: int = 6
    # Weights of a sentence's score; `evaluate` prints what they bring.
    heading_weight: float = 0.35
    rank_weight: float = 0.5
    neighbour_weight: float = 0.25
    number_weight: float = 0.15
    opening_weight: float = 0.05
    # Sentences that score less than this share of the best are left out even when there is room,
    # because every token of the context is waited for.
    least_share: float = 0.0


@dataclass(slots=True)
class Source:
    """One numbered part of the context. `text` is what was extracted from `passages`."""

    number: int
    id: str
    document: str
    title: str
    heading: str
    language: str
    text: str
    passages: list[str]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A passage that is not in the context, and why."""

    id: str
    reason: str


@dataclass(slots=True)
class Context:
    """`context` is the text for the prompt; `tokens` its exact length for the tokenizer given."""

    context: str = ""
    sources: list[Source] = field(default_factory=list)
    tokens: int = 0
    dropped: list[Dropped] = field(default_factory=list)


class Counted:
    """A text whose length in tokens is counted when it is first asked for."""

    def __init__(self, text: str, count: Callable[[str], int]) -> None:
        self.text = text
        self._count = count

    @cached_property
    def tokens(self) -> int:
        return self._count(self.text)

    @cached_property
    def words(self) -> int:
        """Words between white space: never more than `tokens`, and quicker to count."""
        return len(self.text.split())


@dataclass(frozen=True, slots=True)
class Piece:
    """A sentence (list item, code block, table) that goes into the context whole or not at all.

    `passage` is its passage's rank from 0, `place` its place in that passage. `parts` maps a place
    to its text: the sentence itself, and those before it that it cannot be understood without.
    `head` is the numbered heading that a passage brings along, once.
    """

    passage: int
    place: int
    parts: Mapping[int, Counted]
    head: Counted


class FindDuplicates(Protocol):
    """Texts, best first, to {place of a duplicate: place of the earlier text that it repeats}."""

    def __call__(self, texts: Sequence[str], similarity: float) -> Mapping[int, int]: ...


class Fit(Protocol):
    """Pieces, best first, to those that make a context of at most `budget` tokens."""

    def __call__(
        self,
        pieces: Sequence[Piece],
        budget: int,
        *,
        write: Callable[[Sequence[Piece]], str],
        count: Callable[[str], int],
    ) -> Sequence[Piece]: ...


@dataclass(slots=True)
class _Candidate:
    """A passage on its way: its rank from 0, its units, their scores, and which are chosen."""

    passage: Mapping[str, Any]
    rank: int
    units: list[Unit] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    chosen: set[int] = field(default_factory=set)

    @property
    def id(self) -> str:
        return str(self.passage["id"])

    def text(self) -> str:
        return join([unit for at, unit in enumerate(self.units) if at in self.chosen])


# Duplicates


def shingles(text: str, size: int = 3) -> set[int]:
    """Hashes of all runs of `size` words (Broder, 1997); of the whole text when it is shorter."""
    found = words(text)
    if len(found) <= size:
        return {hash(tuple(found))}
    return {hash(run) for run in zip(*(found[at:] for at in range(size)), strict=False)}


def find_duplicates(texts: Sequence[str], similarity: float) -> dict[int, int]:
    """{place of a duplicate: place of the first earlier text that it repeats}, places from 0.

    A text repeats an earlier one when the Jaccard similarity of their shingles is at least
    `similarity`, or when 95 % of its own shingles are in the earlier one. A duplicate is no
    longer compared with: what comes later is held against texts that stay.
    """
    found: dict[int, int] = {}
    kept: dict[int, set[int]] = {}
    for place, text in enumerate(texts):
        mine = shingles(text)
        for earlier, theirs in kept.items():
            shared = len(mine & theirs)
            # Jaccard for near-copies; the second test finds a text that lies inside another.
            if shared >= similarity * len(mine | theirs) or shared >= 0.95 * len(mine):
                found[place] = earlier
                break
        else:
            kept[place] = mine
    return found


# Fitting


def fit_budget(
    pieces: Sequence[Piece],
    budget: int,
    *,
    write: Callable[[Sequence[Piece]], str],
    count: Callable[[str], int],
    skip: bool = True,
) -> list[Piece]:
    """The pieces to take, best first, so that `count(write(them))` is at most `budget` tokens.

    Greedy. A piece costs the tokens of its parts that no piece before it brought, and the heading
    if it is the first of its passage. One that is too long is skipped, or ends the choice when
    `skip` is false. Costs are estimates, because tokens join where texts meet: the finished text
    is counted, and while it is too long the last piece is taken back.
    """
    chosen: list[Piece] = []
    taken: dict[int, set[int]] = {}
    spent = 0
    for piece in pieces:
        have = taken.get(piece.passage, set())
        if piece.place in have:
            continue
        new = [text for place, text in piece.parts.items() if place not in have]
        # No word is less than a token: what cannot fit need not be tokenised.
        if skip and spent + sum(text.words for text in new) > budget:
            continue
        cost = sum(text.tokens for text in new) + (0 if have else piece.head.tokens)
        if spent + cost > budget:
            if skip:
                continue
            break
        chosen.append(piece)
        taken[piece.passage] = have | set(piece.parts)
        spent += cost
    while chosen and count(write(chosen)) > budget:
        chosen.pop()
    return chosen


# The whole


def build_context(
    query: str,
    language: str,
    passages: Sequence[Mapping[str, Any]],
    max_tokens: int,
    tokenizer: Tokenizer,
    options: Options | None = None,
    *,
    duplicates: FindDuplicates = find_duplicates,
    fit: Fit = fit_budget,
) -> Context:
    """A context of at most `max_tokens` tokens out of `passages`, which come best first.

    Each passage is a mapping with id, document, title, heading, position, language and text.
    Nothing is cut inside a sentence, a code block or a table; when not even one sentence fits,
    the context is empty and every passage is in `dropped`. `duplicates` and `fit` are the steps
    of these names; without extraction, `fit_budget` cuts at sentence ends whatever `fit` is.
    """
    options = options or Options()
    result = Context()
    kept = []
    for rank, passage in enumerate(passages):
        if str(passage["text"]).strip():
            kept.append(_Candidate(passage, rank))
        else:
            result.dropped.append(Dropped(str(passage["id"]), "it has no text"))
    if options.duplicates:
        texts = [str(candidate.passage["text"]) for candidate in kept]
        copies = duplicates(texts, options.duplicate_similarity)
        for at, of in sorted(copies.items()):
            result.dropped.append(Dropped(kept[at].id, f"duplicate of {kept[of].id}"))
        kept = [candidate for at, candidate in enumerate(kept) if at not in copies]
    if options.twins:
        kept = _without_twins(kept, language, result.dropped)
    for candidate in kept[options.max_passages :]:
        result.dropped.append(Dropped(candidate.id, "more passages than max_passages"))
    kept = kept[: options.max_passages]
    for candidate in kept:
        candidate.units = units(str(candidate.passage["text"]))
    if options.extract:
        _score(query, language, kept, options)
    else:
        for candidate in kept:
            # In reading order, passage by passage: plain truncation at sentence ends.
            candidate.scores = [-(candidate.rank + at / 1000) for at in range(len(candidate.units))]
    best = max((score for candidate in kept for score in candidate.scores), default=0.0)
    enough = best * options.least_share if options.extract else -math.inf

    def write(chosen: Sequence[Piece]) -> str:
        for candidate in kept:
            candidate.chosen = set()
            for piece in chosen:
                if piece.passage == candidate.rank:
                    candidate.chosen.update(piece.parts)
        _write(kept, options, result)
        return result.context

    if not options.extract:
        fit = partial(fit_budget, skip=False)
    pieces = _pieces(kept, enough, tokenizer, options)
    result.tokens = tokenizer.count(
        write(fit(pieces, max_tokens, write=write, count=tokenizer.count))
    )
    for candidate in kept:
        if not candidate.chosen:
            weak = max(candidate.scores) < enough
            reason = "too weak beside the best passage" if weak else "no room in the token budget"
            result.dropped.append(Dropped(candidate.id, reason))
    return result


# Twins


def _twin_key(passage: Mapping[str, Any]) -> tuple[str, int] | None:
    """What a passage and its translation share: the document id after the language, the position.

    None when the document id does not start with the passage's language.
    """
    prefix, slash, slug = str(passage["document"]).partition("/")
    if not slash or prefix != passage["language"]:
        return None
    return slug, int(passage["position"])


def _without_twins(
    candidates: list[_Candidate], language: str, dropped: list[Dropped]
) -> list[_Candidate]:
    """Of a passage and its translation, keep the one in the question's language, else the first.

    The kept one takes the better of the two places.
    """
    places: dict[tuple[str, int], int] = {}
    kept: list[_Candidate] = []
    for candidate in candidates:
        key = _twin_key(candidate.passage)
        if key is None or key not in places:
            if key is not None:
                places[key] = len(kept)
            kept.append(candidate)
            continue
        other = kept[places[key]]
        if other.passage["language"] == candidate.passage["language"]:
            kept.append(candidate)
            continue
        winner, loser = other, candidate
        if candidate.passage["language"] == language != other.passage["language"]:
            winner, loser = candidate, other
        kept[places[key]] = winner
        winner.rank = other.rank
        dropped.append(Dropped(loser.id, f"the same section as {winner.id} in another language"))
    return kept


# Scoring

_ASKS_NUMBER = re.compile(
    r"\b(?:how (?:many|much|long|often|large|big|fast|far|old|high|low|deep)"
    r"|what (?:number|share|size|percentage|percent|fraction|ratio|value|limit|year|date)"
    r"|when|which year|quando|quant[oa]s?"
    r"|qual (?:o |a |é o |é a )?(?:número|tamanho|valor|limite|porcentagem|percentual|taxa|prazo"
    r"|ano|data)|que (?:porcentagem|percentual|fração|ano|tamanho|valor))\b",
    re.IGNORECASE,
)
_HAS_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|dozen|half|twice|hundred|thousand"
    r"|million|um|uma|dois|duas|três|quatro|cinco|seis|sete|oito|nove|dez|metade|dobro|cem|mil"
    r"|milhão|milhões)\b",
    re.IGNORECASE,
)
_PREFIX = 5


def _score(query: str, language: str, candidates: list[_Candidate], options: Options) -> None:
    """Fill `scores`: how much of the query a unit covers, and how good its surroundings are."""
    asked = {code: set(terms(query, code)) for code in {"en", "pt", language}}
    bags = [
        [set(terms(unit.text, str(c.passage["language"]))) for unit in c.units] for c in candidates
    ]
    frequency = Counter(term for bag in bags for unit in bag for term in unit)
    count = sum(len(bag) for bag in bags)
    idf = {term: math.log(1 + (count - n + 0.5) / (n + 0.5)) for term, n in frequency.items()}
    highest = math.log(1 + (count + 0.5) / 0.5)
    asks_number = bool(_ASKS_NUMBER.search(query))
    for candidate, bag in zip(candidates, bags, strict=True):
        spoken = str(candidate.passage["language"])
        wanted = asked.get(spoken, asked["en"])
        foreign = {} if spoken == language else _prefixes(asked.get(language, set()))
        total = sum(idf.get(term, highest) for term in wanted) or 1.0
        head = f"{candidate.passage['title']} {candidate.passage['heading']}"
        heading = _coverage(set(terms(head, spoken)), wanted, foreign, idf, highest) / total
        own = [_coverage(unit, wanted, foreign, idf, highest) / total for unit in bag]
        base = options.heading_weight * heading + options.rank_weight / (1 + candidate.rank)
        for at, unit in enumerate(candidate.units):
            score = own[at] + base
            around = max(own[at - 1] if at else 0.0, own[at + 1] if at + 1 < len(own) else 0.0)
            score += options.neighbour_weight * around
            if at == 0:
                score += options.opening_weight
            if asks_number and _HAS_NUMBER.search(unit.text):
                score += options.number_weight
            candidate.scores.append(score)


def _prefixes(found: set[str]) -> dict[str, str]:
    """Cognates share their beginning (latency, latência): the link between two languages."""
    return {fold(term)[:_PREFIX]: term for term in found if len(term) >= _PREFIX}


def _coverage(
    unit: set[str],
    wanted: set[str],
    foreign: Mapping[str, str],
    idf: Mapping[str, float],
    highest: float,
) -> float:
    covered = sum(idf.get(term, highest) for term in unit & wanted)
    if foreign:
        seen = {foreign[term[:_PREFIX]] for term in unit - wanted if term[:_PREFIX] in foreign}
        covered += 0.5 * highest * len(seen - unit)
    return covered


# Choosing

_LONGEST_CHAIN = 3


def _pieces(
    candidates: list[_Candidate], enough: float, tokenizer: Tokenizer, options: Options
) -> list[Piece]:
    """The units that score `enough`, best first, each with what it leans on."""
    ranking = sorted(
        (
            (-score, candidate.rank, at, candidate)
            for candidate in candidates
            for at, score in enumerate(candidate.scores)
            if score >= enough
        ),
        key=lambda item: item[:3],
    )
    # A space becomes part of the next word's token; a line break is a token of its own.
    texts = {
        candidate.rank: [Counted(u.joint + u.text, tokenizer.count) for u in candidate.units]
        for candidate in candidates
    }
    heads = {
        candidate.rank: Counted("\n" + _head(9, candidate.passage, options), tokenizer.count)
        for candidate in candidates
    }
    return [
        Piece(
            candidate.rank,
            at,
            {place: texts[candidate.rank][place] for place in _group(candidate, at)},
            heads[candidate.rank],
        )
        for _, _, at, candidate in ranking
    ]


def _group(candidate: _Candidate, at: int) -> list[int]:
    """The unit and, one after the other, those it cannot be understood without: three at most."""
    group = [at]
    needs = candidate.units[at].needs
    while needs is not None and len(group) <= _LONGEST_CHAIN:
        group.append(needs)
        needs = candidate.units[needs].needs
    return group


# Writing

_MARKER = re.compile(r"(?<!\w)\[(\d{1,3})\]")


def _head(number: int, passage: Mapping[str, Any], options: Options) -> str:
    if not options.headings:
        return f"[{number}] "
    parts = [str(passage["title"]), str(passage["heading"])]
    name = " — ".join(part for part in parts if part)
    return f"[{number}] {name}\n" if name else f"[{number}] "


def _write(candidates: list[_Candidate], options: Options, result: Context) -> None:
    """Merge, order and number what is chosen, and put the text together."""
    groups = _merge([c for c in candidates if c.chosen], options)
    if options.order == "edges":
        groups = _edges(groups)
    result.sources, parts = [], []
    for number, group in enumerate(groups, start=1):
        best = min(group, key=lambda candidate: candidate.rank).passage
        text = ""
        for part in (candidate.text() for candidate in group):
            text += (below(text, part) if text else "") + part
        names = ("id", "document", "title", "heading", "language")
        fields = {name: str(best[name]) for name in names}
        result.sources.append(
            Source(number=number, text=text, passages=[c.id for c in group], **fields)
        )
        # "[3]" inside a passage would be read as the number of a source.
        parts.append(_head(number, best, options) + _MARKER.sub(r"(\1)", text))
    result.context = "\n".join(parts)


def _merge(candidates: list[_Candidate], options: Options) -> list[list[_Candidate]]:
    """Groups in order of their best rank; neighbours in a document share a group when merging."""
    groups: list[list[_Candidate]] = []
    for candidate in sorted(candidates, key=lambda c: c.rank):
        near = [group for group in groups if options.merge and _adjoins(candidate, group)]
        if not near:
            groups.append([candidate])
            continue
        first = near[0]
        first.append(candidate)
        for other in near[1:]:
            first.extend(other)
            groups.remove(other)
        first.sort(key=lambda c: int(c.passage["position"]))
    return groups


def _adjoins(candidate: _Candidate, group: list[_Candidate]) -> bool:
    mine = candidate.passage
    return any(
        other.passage["document"] == mine["document"]
        and abs(int(other.passage["position"]) - int(mine["position"])) == 1
        for other in group
    )


def _edges(groups: list[list[_Candidate]]) -> list[list[_Candidate]]:
    """Best first, second best last, the weakest in the middle, where models read least (Liu et
    al., Lost in the Middle, 2023)."""
    return groups[::2] + groups[1::2][::-1]
