"""Spelling against two dictionaries and the corpus's own words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from .lexicon import LANGUAGES, Lexicon
from .text import fold
from .vocabulary import Vocabulary

# What is no ordinary word: code in backticks, quoted text, addresses, paths, versions.
_CHUNK = re.compile(r"\S+")
_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"")
_CODE_MARKS = re.compile(r"[\d/\\@_=<>{}\[\]#$%^&*+|~:.]")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_LETTERS = "abcdefghijklmnopqrstuvwxyzáâãàçéêíóôõúü"
_SHORTEST, _LONGEST = 4, 30
_MOST_UNKNOWN = 20
_DOUBLED = re.compile(r"(.)\1+")
_SOUNDS = (("sc", "s"), ("ch", "x"), ("ph", "f"), ("qu", "k"), ("ck", "k"), ("z", "s"), ("ç", "s"),
           ("ce", "se"), ("ci", "si"), ("ge", "je"), ("gi", "ji"), ("y", "i"), ("w", "v"),
           ("c", "k"), ("h", ""))  # fmt: skip
# Spellings of the other side of the ocean, which the word lists lack: a word is known when the
# form that they have is.
_VARIANTS = tuple(
    (re.compile(pattern), other)
    for pattern, other in (
        ("ê", "é"), ("ô", "ó"), ("ct", "t"), ("cç", "ç"), ("pt", "t"), ("gistr", "gist"),
        ("is(?=ation|e|ed|es|ing|er|ers|ations)", "iz"), ("yse", "yze"), ("our", "or"),
        ("tre(?=s?$)", "ter"), ("ogue", "og"), ("ll(?=ed|ing|er)", "l"), ("ão$", "o"),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Correction:
    """One word: what was typed, what it should be, and where it stands in the text."""

    start: int
    typed: str
    corrected: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word that may have been meant.

    `cost` is what lies between it and what was typed, in edits; `weight` is how common it is, as
    a base-2 logarithm.
    """

    word: str
    cost: float
    weight: float


Near = Callable[[str], Sequence[Candidate]]
"""A word in lower case → words that are near it; empty when there are none."""


class Choose(Protocol):
    """The word that was meant by `word` (lower case), or None to leave it alone."""

    def __call__(
        self,
        word: str,
        *,
        known: Callable[[str], bool],
        passages: Near,
        dictionary: Near,
        edit_cost: float,
    ) -> str | None: ...


def choose(
    word: str,
    *,
    known: Callable[[str], bool],
    passages: Near,
    dictionary: Near,
    edit_cost: float,
) -> str | None:
    """The noisy channel (Kernighan, Church and Gale, 1990): common, and reached by a likely slip.

    A known word is left alone. Candidates from the passages come first, because search finds
    something for them; the dictionary is asked only when they offer none.
    """
    if known(word):
        return None
    for near in (passages, dictionary):
        if found := near(word):
            ordered = sorted(found, key=lambda candidate: candidate.word)
            return max(ordered, key=lambda c: c.weight - edit_cost * c.cost).word
    return None


@dataclass(frozen=True, slots=True)
class SpellingOptions:
    """Weights of a candidate's score; `evaluate` prints what they lead to."""

    edit_cost: float = 8.0
    # Candidates from the passages: two edits only in words of this length, and rarer words only
    # for less than one edit (in log2 of passages, for each edit after the first).
    two_edits_from: int = 8
    least_weight: float = 1.5
    # Candidates from the dictionary: only common words, only for words of this length.
    dictionary_from: int = 5
    least_share: float = -19.0
    # A word of the passages is a slip from this length, when the right one is so much commoner.
    slip_from: int = 6
    slip_ratio: int = 20


_DEFAULTS = SpellingOptions()


class SpellingCorrector:
    """Corrects words that no dictionary and no passage knows; leaves everything else alone."""

    def __init__(
        self,
        lexicon: Lexicon,
        vocabulary: Vocabulary,
        options: SpellingOptions = _DEFAULTS,
        choose: Choose = choose,
    ) -> None:
        self._lexicon = lexicon
        self._vocabulary = vocabulary
        self._options = options
        self._choose = choose
        self._best = lru_cache(maxsize=10_000)(self._find)

    def correct(self, text: str, language: str) -> list[Correction]:
        """Corrections of `text`, in order. Names, acronyms, code and numbers are not touched."""
        protected = _protected(text)
        shouting = text.isupper()
        found: list[Correction] = []
        unknown = 0
        for match in _WORD.finditer(text):
            word, start = match[0], match.start()
            if not _SHORTEST <= len(word) <= _LONGEST or "'" in word or start in protected:
                continue
            if not shouting and not word.islower() and not _opens_sentence(text, match):
                continue
            if not self._is_known(word.lower()):
                unknown += 1
                if unknown > _MOST_UNKNOWN:  # that is no question in either language
                    return []
            better = self._best(word.lower(), language)
            if better is not None:
                found.append(Correction(start, word, _like(word, better)))
        return found

    def _is_known(self, word: str) -> bool:
        forms = {word}
        for pattern, other in _VARIANTS:
            if pattern.search(word):
                forms.add(pattern.sub(other, word))
        for form in list(forms):
            if len(form) > _SHORTEST and form[-1] == "s":
                forms.add(form[:-1])
        return any(form in self._vocabulary or self._in_dictionary(form) for form in forms)

    def _find(self, word: str, language: str) -> str | None:
        """The best candidate for one word in lower case, or None."""
        better = self._choose(
            word,
            known=self._is_known,
            passages=self._from_passages,
            dictionary=partial(self._from_dictionary, language=language),
            edit_cost=self._options.edit_cost,
        )
        if better is None and self._is_known(word):
            better = self._is_slip(word)
        return None if better == word else better

    def _is_slip(self, word: str) -> str | None:
        """The common word that a rare one of the passages is a slip of, or None.

        Passages hold misspellings too. A word that no dictionary has, that hardly any passage
        holds, and that differs by a doubled or swapped letter from a common one is taken as such.
        """
        count = self._vocabulary.count(word)
        if not 0 < count <= 2 or len(word) < self._options.slip_from or self._in_dictionary(word):
            return None
        plain = fold(word)
        for candidate, _, _ in extract(
            plain, self._vocabulary.near_length(len(plain), 1), scorer=OSA.distance, score_cutoff=1
        ):
            written = self._vocabulary.as_written(candidate) or candidate
            common = self._vocabulary.count(written) >= self._options.slip_ratio * count
            if common and candidate != plain and _cost(plain, candidate, 1) <= 0.8:
                return written
        return None

    def _in_dictionary(self, word: str) -> bool:
        return any(self._lexicon.frequency(word, code) is not None for code in LANGUAGES)

    def _from_passages(self, word: str) -> list[Candidate]:
        """Words of the passages that are near."""
        options, plain = self._options, fold(word)
        reach = 2 if len(plain) >= options.two_edits_from else 1
        found = []
        for candidate, edits, _ in extract(
            plain,
            self._vocabulary.near_length(len(plain), reach),
            scorer=OSA.distance,
            score_cutoff=reach,
            limit=30,
        ):
            written = self._vocabulary.as_written(candidate) or candidate
            cost = _cost(plain, candidate, edits)
            weight = self._vocabulary.weight(written)
            if len(written) < 3 or weight < options.least_weight * (cost - 1):
                continue
            found.append(Candidate(written, cost, weight))
        return found

    def _from_dictionary(self, word: str, language: str) -> list[Candidate]:
        """Common words of the language one edit away; the weight is log2 of their share."""
        options, plain = self._options, fold(word)
        if len(plain) < options.dictionary_from:
            return []
        near = sorted(_one_edit(word))
        shares = self._lexicon.frequencies(near, language)
        return [
            Candidate(candidate, _cost(plain, fold(candidate), 1), share)
            for candidate, share in zip(near, shares, strict=True)
            if not math.isnan(share) and share >= options.least_share
        ]


def _protected(text: str) -> set[int]:
    """Places in `text` that are quoted, or in a chunk with a mark or digit of code inside it."""
    places: set[int] = set()
    for match in _QUOTED.finditer(text):
        places.update(range(*match.span()))
    for match in _CHUNK.finditer(text):
        core = match[0].strip(".,:;!?()[]*'\"")
        if _CODE_MARKS.search(core):
            places.update(range(*match.span()))
    return places


def _opens_sentence(text: str, match: re.Match[str]) -> bool:
    """A capital there says nothing, unless the next word has one too (a name)."""
    if not match[0][1:].islower():
        return False
    before = text[: match.start()].rstrip(" \"'(¿¡")
    after = text[match.end() :].lstrip()
    return (not before or before[-1] in ".?!:") and not after[:1].isupper()


def _cost(typed: str, candidate: str, edits: int) -> float:
    """Edits, weighed: what a finger or an ear does by itself costs less than another letter."""
    if edits == 0:
        return 0.0
    if _squeeze(typed) == _squeeze(candidate):
        cost = 0.4
    elif _sound(typed) == _sound(candidate):
        cost = 0.5
    elif len(typed) == len(candidate):
        cost = 0.8 * edits if sorted(typed) == sorted(candidate) else 1.15 * edits
    else:
        cost = 1.0 * edits
    return cost + (0.6 if typed[0] != candidate[0] else 0.0)


def _squeeze(word: str) -> str:
    return _DOUBLED.sub(r"\1", word)


def _sound(word: str) -> str:
    """Letters that Portuguese (and sloppy English) spelling takes for each other, as one."""
    for letters, sound in _SOUNDS:
        word = word.replace(letters, sound)
    return _squeeze(word)


def apply(text: str, corrections: list[Correction]) -> str:
    """`text` with the corrections in place."""
    for item in reversed(corrections):
        text = text[: item.start] + item.corrected + text[item.start + len(item.typed) :]
    return text


def _like(typed: str, corrected: str) -> str:
    if typed.isupper():
        return corrected.upper()
    return corrected[0].upper() + corrected[1:] if typed[0].isupper() else corrected


def _one_edit(word: str) -> set[str]:
    """All strings one deletion, transposition, replacement or insertion away (Norvig, 2007)."""
    splits = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    found = {left + right[1:] for left, right in splits if right}
    found |= {left + right[1] + right[0] + right[2:] for left, right in splits if len(right) > 1}
    found |= {left + char + right[1:] for left, right in splits if right for char in _LETTERS}
    found |= {left + char + right for left, right in splits for char in _LETTERS}
    found.discard(word)
    return found
