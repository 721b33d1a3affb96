"""How far a sentence is supported by a source: lexical, with no model.

The support of a sentence by a source is the weighted share of its content words that stand in
the source's best pair of adjacent sentences (or, for half, elsewhere in the source), by stem.
Words weigh as in inverse document frequency, over the sentences of all sources: a word that only
one sentence has says more about where a claim comes from. Words of the question weigh little,
because repeating it proves nothing. Every figure of the sentence must stand in the source.

Source and answer in different languages: stems cannot agree, so a word counts as found if a
small glossary pairs it with a word of the source, or if the two begin alike, as the cognates of
a technical vocabulary do (precision/precisão). Figures must agree as always. Fewer true
sentences reach the same score that way; the threshold for this case is lower.

What words cannot show is a claim turned into its opposite. A negation that only one side has
lowers the support, and that is all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .text import (
    fold,
    glossary,
    guess_language,
    is_common,
    language_of,
    numbers,
    sentences,
    terms,
)

_QUESTION_WEIGHT = 0.35
_ELSEWHERE = 0.5
_COMMON_WEIGHT = 0.3
_NEGATION_FACTOR = 0.75
_NEGATIONS = {
    "en": {"not", "no", "never", "cannot", "without", "neither", "nor", "none", "t"},
    "pt": {"nao", "nunca", "jamais", "sem", "nem", "nenhum", "nenhuma"},
}


@dataclass(frozen=True, slots=True)
class Source:
    """One numbered source, as it stood in the prompt."""

    number: int
    id: str
    document: str
    title: str
    heading: str
    language: str
    text: str


Share = Callable[[Mapping[str, float], Sequence[frozenset[str]], frozenset[str]], tuple[float, int]]
"""`share_in_two_sentences`, or another with its signature."""


def share_in_two_sentences(
    claim: Mapping[str, float], sentences: Sequence[frozenset[str]], head: frozenset[str]
) -> tuple[float, int]:
    """(share of the claim, 0 to 1; place of the first of the two sentences that hold most of it).

    `claim` is content word → weight, with a sum above 0. `sentences` are the words of a source's
    sentences in order; `head` those of its title and heading, which stand beside each pair. A word
    that stands in the source but not in the pair counts half. The first of equal pairs is taken.
    """
    everywhere = head.union(*sentences)
    best, place = 0.0, 0
    for start in range(max(1, len(sentences) - 1)):
        near = head.union(*sentences[start : start + 2])
        held = sum(
            weight * (1.0 if word in near else _ELSEWHERE if word in everywhere else 0.0)
            for word, weight in claim.items()
        )
        if held > best:
            best, place = held, start
    return best / sum(claim.values()), place


@dataclass(frozen=True, slots=True)
class Support:
    """`score` from 0 to 1; `missing` are figures of the sentence that the source lacks."""

    score: float
    missing: int = 0
    cross_language: bool = False


class _Indexed:
    """A source cut into windows of two adjacent sentences, each as a set of stems."""

    def __init__(self, source: Source) -> None:
        self.language = language_of(source.language)
        parts = [part for line in source.text.split("\n") for part in sentences(line)]
        self.texts = parts
        self.sentences = [frozenset(terms(part, self.language)) for part in parts]
        self.negated = [_negated(part, self.language) for part in parts]
        head = f"{source.title} {source.heading}"
        self.head = frozenset(terms(head, self.language))
        self.all = self.head.union(*self.sentences)
        self.numbers = frozenset().union(*numbers(f"{head} {source.text}", self.language))


class Evidence:
    """The sources of one answer, prepared for many sentences."""

    def __init__(
        self,
        question: str,
        sources: Sequence[Source],
        language: str,
        share: Share = share_in_two_sentences,
    ) -> None:
        self.language = language_of(language)
        self._share = share
        self.sources = {source.number: _Indexed(source) for source in sources}
        self.question = frozenset(terms(question, self.language))
        self._question_numbers = numbers(question, self.language)
        every = [part for source in self.sources.values() for part in source.sentences]
        self._frequency = Counter(term for part in every for term in part)
        self._sentences = len(every)

    def weight(self, term: str) -> float:
        """Inverse document frequency of a stem over the sources' sentences, from about 0.7 up."""
        return math.log(1 + (self._sentences + 1) / (self._frequency[term] + 1))

    def sentence_weight(self, sentence: str) -> float:
        """How much a sentence says: the sum of its words' weights; at least 1."""
        found = set(terms(sentence, self.language))
        return max(1.0, sum(self.weight(term) for term in found))

    def says_something(self, sentence: str) -> bool:
        return bool(terms(sentence, self.language) or numbers(sentence, self.language))

    def support(self, sentence: str, number: int) -> Support:
        """Support of a sentence (in the answer's language) by source `number`."""
        source = self.sources[number]
        # A small model asked in one language sometimes answers in that of its sources.
        language = guess_language(sentence, self.language)
        cross = source.language != language
        figures = numbers(sentence, language)
        missing = sum(1 for values in figures if not values & source.numbers)
        wanted = self._weights(sentence, source, language)
        if sum(wanted.values()) == 0:
            return Support(0.0 if missing or not figures else 1.0, missing, cross)
        parts, head = self._in_words_of(wanted, source, language)
        score, place = self._share(wanted, parts, head)
        if _negated(sentence, language) and not any(source.negated[place : place + 2]):
            score *= _NEGATION_FACTOR
        return Support(score, missing, cross)

    def _in_words_of(
        self, wanted: Mapping[str, float], source: _Indexed, language: str
    ) -> tuple[Sequence[frozenset[str]], frozenset[str]]:
        """The source's sentences and head as sets of the claim's own words."""
        if source.language == language:
            return source.sentences, source.head
        found = {term: self._found_as(term, source, language) for term in wanted}

        def held(words: frozenset[str]) -> frozenset[str]:
            return frozenset(term for term in wanted if found[term] & words)

        return [held(part) for part in source.sentences], held(source.head)

    def _weights(self, sentence: str, source: _Indexed, language: str) -> dict[str, float]:
        weights = {}
        for term in set(terms(sentence, language)):
            in_source = bool(self._found_as(term, source, language))
            asked = term in self.question
            if asked and not in_source:
                continue  # a word of the asker's own, perhaps misspelled: no claim of the answer
            weights[term] = self.weight(term) * (_QUESTION_WEIGHT if asked else 1.0)
        return weights

    def _found_as(self, term: str, source: _Indexed, language: str) -> frozenset[str]:
        """The stems of the source that this one, of `language`, stands for."""
        if term in source.all:
            return frozenset({term})
        if source.language == language:
            return frozenset()
        paired = glossary().get(f"{language}:{term}", frozenset()) & source.all
        return paired or frozenset(other for other in source.all if _cognate(term, other))

    def relevance(self, cited: Sequence[int]) -> float:
        """How far the sources are about the question at all, 0 to 1.

        The mean of two shares of the question's content words and figures: what all sources
        together hold, and what the best cited source alone holds. A question whose words are
        only met one here, one there is about something else. Very common words weigh less;
        near-misses in spelling count, since questions are typed by people. 1.0 for a question
        without content words ("And why?"): there is nothing to compare.
        """
        weights = self._question_weights()
        total = sum(weights.values()) + len(self._question_numbers)
        if not total:
            return 1.0
        held = {number: self._held(source, weights) for number, source in self.sources.items()}
        worth = [*weights.values(), *(1.0 for _ in self._question_numbers)]
        together = [any(one[index] for one in held.values()) for index in range(len(worth))]
        best = max((_sum(held[number], worth) for number in cited), default=0.0)
        return (_sum(together, worth) + best) / (2 * total)

    def _question_weights(self) -> dict[str, float]:
        return {
            term: _COMMON_WEIGHT if is_common(term, self.language) else 1.0
            for term in self.question
        }

    def quote(self, *, with_figure: bool, least_share: float) -> tuple[int, list[str]] | None:
        """The two adjacent sentences that hold most of the question, and their source's number.

        Only from sources in the question's language, only if they hold at least `least_share` of
        it, and with `with_figure` only if they have a figure that the question has not.
        """
        weights = self._question_weights()
        best, least = None, least_share * sum(weights.values())
        for number, source in self.sources.items():
            if source.language != self.language:
                continue
            for start in range(max(1, len(source.texts) - 1)):
                window = source.head.union(*source.sentences[start : start + 2])
                texts = source.texts[start : start + 2]
                score = sum(
                    weight
                    for term, weight in weights.items()
                    if term in window or any(_alike(term, other) for other in window)
                )
                if score < least or (best is not None and score == least):
                    continue
                if texts and (not with_figure or self.has_new_figure(" ".join(texts))):
                    best, least = (number, texts), score
        return best

    def _held(self, source: _Indexed, weights: dict[str, float]) -> list[bool]:
        """For each word of the question, then for each figure, whether the source has it."""
        words = [
            bool(self._found_as(term, source, self.language))
            or any(_alike(term, other) for other in source.all)
            for term in weights
        ]
        return [*words, *(bool(values & source.numbers) for values in self._question_numbers)]

    def repeats_question(self, sentence: str) -> bool:
        """Whether a sentence has no content word and no figure that the question has not."""
        new_terms = [
            term
            for term in terms(sentence, self.language)
            if term not in self.question and not any(_alike(term, one) for one in self.question)
        ]
        return not new_terms and not self.has_new_figure(sentence)

    def has_new_figure(self, text: str) -> bool:
        """Whether the text has a figure that the question has not."""
        known = frozenset().union(*self._question_numbers)
        return any(not values & known for values in numbers(text, self.language))


def _sum(held: Sequence[bool], worth: Sequence[float]) -> float:
    return sum(value for has, value in zip(held, worth, strict=True) if has)


def _negated(text: str, language: str) -> bool:
    words = fold(text).replace("'", " ").replace("’", " ").split()
    return any(word.strip(".,;:!?()") in _NEGATIONS[language] for word in words)


def _cognate(one: str, other: str) -> bool:
    shorter = min(len(one), len(other))
    common = _common_prefix(one, other)
    return common >= 4 and common >= 0.6 * shorter


def _alike(one: str, other: str) -> bool:
    """One letter wrong, missing, too many or swapped, in words of five letters or more."""
    if min(len(one), len(other)) < 5 or abs(len(one) - len(other)) > 1:
        return False
    start = _common_prefix(one, other)
    end = _common_prefix(one[start:][::-1], other[start:][::-1])
    left, right = one[start : len(one) - end], other[start : len(other) - end]
    if max(len(left), len(right)) <= 1:
        return True
    return len(left) == len(right) == 2 and left == right[::-1]


def _common_prefix(one: str, other: str) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
