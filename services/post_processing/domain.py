"""All checks of one answer, in order. No web framework, no model: text in, text and reasons out.

result = postprocess(question, answer, sources, language="pt")
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from . import personal_data, refusal, safety
from .grounding import Evidence, Share, Source, Support, share_in_two_sentences
from .text import (
    Segment,
    citations,
    fold,
    join,
    language_of,
    segments,
    without_citations,
)

Mode = Literal["generated", "extractive"]


# A question that "yes" answers may be said back as its answer. On folded text.
_YES_NO = re.compile(
    r"(?:is|are|was|were|do|does|did|can|could|may|should|must|will|would|has|have|e|sao|foi|pode|"
    r"podem|posso|deve|devem|devo|ha|existe|existem|tem|preciso|precisa|vale)\b"
)
_HOW_MANY = re.compile(r"\b(?:how (?:many|much)|quant[oa]s?|que porcentagem|what percentage)\b")


@dataclass(frozen=True, slots=True)
class Policy:
    """Thresholds from 0 to 1, chosen on the handbook's train and validation questions with
    `python -m services.post_processing.evaluate`."""

    support_threshold: float = 0.5
    cross_threshold: float = 0.3
    relevance_threshold: float = 0.52
    mask_personal_data: bool = True
    mask_profanity: bool = True


Cite = Callable[[Sequence[int], Mapping[int, float], Mapping[int, float]], list[int]]
"""`settle_citations`, or another with its signature."""


def settle_citations(
    given: Sequence[int], scores: Mapping[int, float], least: Mapping[int, float]
) -> list[int]:
    """The sources that a sentence may cite; none if no source supports it.

    `given` are the numbers that the model wrote, in order. `scores` is source → support, `least`
    source → the support that is enough. What the model cited rightly stays, in its order; where
    nothing stays, the best source stands in (of equals the one with the lower number).
    """
    good = {number: score for number, score in scores.items() if score >= least[number]}
    kept = [number for number in dict.fromkeys(given) if number in good]
    return kept or sorted(good, key=lambda number: (-good[number], number))[:1]


@dataclass(frozen=True, slots=True)
class Steps:
    """The three steps of `postprocess` that can be replaced."""

    cite: Cite = settle_citations
    share: Share = share_in_two_sentences
    is_cpf: personal_data.IsCpf = personal_data.is_cpf


@dataclass(frozen=True, slots=True)
class Decision:
    check: str
    action: str
    detail: str


@dataclass(slots=True)
class Result:
    answer: str
    citations: list[dict[str, Any]]
    groundedness: float
    refused: bool
    decisions: list[Decision]


@dataclass(slots=True)
class _Checked:
    """A part of the answer with the sources that it ends up citing."""

    segment: Segment
    cited: list[int] = field(default_factory=list)
    weight: float = 0.0
    supported: bool = False


def postprocess(
    question: str,
    answer: str,
    sources: Sequence[Source],
    *,
    language: str,
    mode: Mode = "generated",
    policy: Policy | None = None,
    steps: Steps | None = None,
) -> Result:
    """Check an answer against the sources it was made from. Never raises on odd text."""
    run = _Run(question, sources, language, mode, policy or Policy(), steps or Steps())
    return run.run(answer)


def warm_up() -> None:
    """Load what the checks need (word lists, metadata), so that the first answer is as fast as
    the others."""
    source = Source(1, "id", "id", "Breakers", "", "pt", "Um breaker abre após 5 falhas.")
    text = "A breaker opens after 5 failures, see <b>a@b.com</b> or (11) 91234-5678 [1]."
    postprocess("When does it open?", text, [source], language="en", policy=Policy(0, 0, 0))


class _Run:
    def __init__(
        self,
        question: str,
        sources: Sequence[Source],
        language: str,
        mode: Mode,
        policy: Policy,
        steps: Steps,
    ) -> None:
        self.question = question
        self.language = language_of(language)
        self.policy = policy
        self.steps = steps
        self.mode = mode
        self.sources = {source.number: source for source in sources}
        self.evidence = Evidence(question, sources, language, steps.share)
        self.source_text = "\n".join(
            f"{source.title}\n{source.heading}\n{source.text}" for source in sources
        )
        self.decisions: list[Decision] = []

    def decide(self, check: str, action: str, detail: str) -> None:
        self.decisions.append(Decision(check, action, detail))

    def run(self, answer: str) -> Result:
        parts = segments(safety.without_opening(answer.strip()))
        parts = self._without_leaks(parts)
        parts = self._without_unknowns(parts)
        if not parts:
            return self._refuse()
        parts = self._without_echoes(parts)
        if not parts:
            self.decide("groundedness", "refused", "the model gave no answer of its own")
            return self._refuse()
        checked = [self._check(part) for part in parts]
        self._settle_short_ones(checked)
        groundedness = self._groundedness(checked)
        kept = [item for item in checked if item.supported]
        if not kept and self.mode == "generated":
            # What the model made up goes; if the sources speak of just this, they stand in.
            checked = [self._check(part) for part in self._quote(least_share=0.8)]
            kept = [item for item in checked if item.supported]
            if kept:
                groundedness = self._groundedness(checked)
        if not kept:
            self.decide("groundedness", "refused", "no sentence is supported by a source")
            return self._refuse(groundedness)
        cited = list(dict.fromkeys(number for item in kept for number in item.cited))
        if not self._answers_the_question(cited):
            return self._refuse(groundedness)
        text = join([_with_citations(item) for item in kept])
        text = self._sanitise(_tidy(text))
        if not without_citations(text).strip(" .\n"):
            self.decide("formatting", "refused", "nothing was left to say")
            return self._refuse(groundedness)
        return Result(
            text,
            [
                self._citation(number)
                for number in sorted(citations(text))
                if number in self.sources
            ],
            round(groundedness, 3),
            False,
            self.decisions,
        )

    # -- what is no answer ----------------------------------------------------------------

    def _without_leaks(self, parts: list[Segment]) -> list[Segment]:
        kept = [part for part in parts if not safety.leaks_prompt(part.text, self.source_text)]
        if len(kept) < len(parts):
            self.decide(
                "prompt_leak", "removed", f"{len(parts) - len(kept)} parts showed the prompt's text"
            )
        else:
            self.decide("prompt_leak", "passed", "none of the prompt's text")
        return kept

    def _without_unknowns(self, parts: list[Segment]) -> list[Segment]:
        kept = [part for part in parts if not refusal.says_unknown(part.text)]
        if len(kept) == len(parts):
            if not parts:
                self.decide("refusal", "refused", "there is no answer to check")
            return kept
        if kept and self.mode == "generated" and refusal.says_unknown(parts[0].text):
            # What follows "I do not know" is a guess or an apology.
            kept = []
        if kept:
            self.decide("refusal", "removed", "the model said of a part that it does not know")
        else:
            self.decide("refusal", "refused", "the model says that it does not know")
        return kept

    def _without_echoes(self, parts: list[Segment]) -> list[Segment]:
        """Without sentences that only say the question back.

        Where nothing else is left, or "how many" was asked and no figure given, the model found
        no words of its own: the sources' sentences that hold most of the question stand in.
        """
        if self.mode == "extractive":
            return parts
        kept = [part for part in parts if not self._is_echo(part)]
        if not any(self._is_claim(part) for part in kept):
            kept = []
        if len(kept) < len(parts):
            self.decide("echo", "removed", f"{len(parts) - len(kept)} parts say nothing new")
        if kept and _HOW_MANY.search(fold(self.question)):
            said = " ".join(without_citations(part.text) for part in kept)
            if not self.evidence.has_new_figure(said):
                self.decide("answer_type", "removed", "a figure is asked for, none is given")
                kept = []
        return kept or self._quote(least_share=0.5)

    def _quote(self, least_share: float) -> list[Segment]:
        """The two source sentences that hold most of the question, cited; none if they hold
        less than `least_share` of it, or lack the figure that is asked for."""
        how_many = _HOW_MANY.search(fold(self.question)) is not None
        quoted = self.evidence.quote(with_figure=how_many, least_share=least_share)
        if quoted is None:
            return []
        number, texts = quoted
        self.decide("quotation", "replaced", f"by sentences of source [{number}]")
        return [Segment(f"{text} [{number}]") for text in texts]

    # -- citations and support ------------------------------------------------------------

    def _check(self, segment: Segment) -> _Checked:
        claim = without_citations(segment.text)
        item = _Checked(segment, weight=self.evidence.sentence_weight(claim))
        shown = _shorten(claim, self.steps.is_cpf)
        given = citations(segment.text)
        invalid = [number for number in given if number not in self.sources]
        if invalid:
            self.decide("citation", "removed", f"[{invalid[0]}] is no source that was given")
        if not self._is_claim(segment):
            return item
        supports = {number: self.evidence.support(claim, number) for number in self.sources}
        scores = {number: one.score for number, one in supports.items()}
        least = {number: self._least(one) for number, one in supports.items()}
        item.cited = self.steps.cite(given, scores, least)
        if not item.cited:
            missing = min((one.missing for one in supports.values()), default=0)
            reason = "has a figure that no source has" if missing else "no source supports it"
            self.decide("groundedness", "removed", f"“{shown}”: {reason}")
            return item
        item.supported = True
        dropped = [n for n in given if n in self.sources and n not in item.cited]
        if dropped:
            self.decide("citation", "removed", f"[{dropped[0]}] does not support “{shown}”")
        if not set(item.cited) & set(given):
            action = "replaced" if given else "added"
            self.decide("citation", action, f"[{item.cited[0]}] is the best source of “{shown}”")
        elif not dropped and not invalid:
            self.decide("citation", "passed", f"[{item.cited[0]}] supports “{shown}”")
        return item

    def _is_echo(self, part: Segment) -> bool:
        """The question again, as a question or as a statement that adds nothing to it."""
        text = without_citations(part.text)
        if not self._is_claim(part) or not self.evidence.repeats_question(text):
            return False
        asks = text.rstrip(" .").endswith("?")
        return asks or not _YES_NO.match(fold(self.question).strip())

    def _is_claim(self, part: Segment) -> bool:
        """Not "Yes." and not "A breaker opens in these cases:", which stand or fall with what
        follows them."""
        text = without_citations(part.text)
        if text.rstrip().endswith(":") and self.evidence.repeats_question(text):
            return False
        return self.evidence.says_something(text)

    def _least(self, support: Support) -> float:
        """The support that is enough. Where a figure is missing, no share of words is."""
        if support.missing:
            return math.inf
        policy = self.policy
        return policy.cross_threshold if support.cross_language else policy.support_threshold

    def _settle_short_ones(self, checked: list[_Checked]) -> None:
        """Parts without a claim of their own ("Yes.", "In short:") go with the next part, or
        with the one before when they are last."""
        for index in range(len(checked) - 1, -1, -1):
            item = checked[index]
            if item.supported or self._is_claim(item.segment):
                continue
            neighbours = checked[index + 1 : index + 2] or checked[max(0, index - 1) : index]
            item.supported = any(one.supported for one in neighbours)
            item.weight = 0.0

    def _groundedness(self, checked: list[_Checked]) -> float:
        """Share of the answer, by weight of its sentences, that a source supports."""
        total = sum(item.weight for item in checked)
        share = sum(item.weight for item in checked if item.supported) / total if total else 0.0
        self.decide("groundedness", "measured", f"{share:.2f} of the answer is supported")
        return share

    def _answers_the_question(self, cited: list[int]) -> bool:
        """Whether the sources are about the question at all."""
        relevance = self.evidence.relevance(cited)
        if relevance >= self.policy.relevance_threshold:
            self.decide("relevance", "passed", f"{relevance:.2f} of the question is in the sources")
            return True
        self.decide(
            "relevance", "refused", f"only {relevance:.2f} of the question is in the sources"
        )
        return False

    # -- safety ---------------------------------------------------------------------------

    def _sanitise(self, text: str) -> str:
        if self.policy.mask_personal_data:
            text, kinds = personal_data.mask(text, self.source_text, self.steps.is_cpf)
            if kinds:
                self.decide("personal_data", "masked", ", ".join(kinds))
            else:
                self.decide("personal_data", "passed", "none to mask")
        if self.policy.mask_profanity:
            text, count = safety.mask_profanity(text, self.source_text)
            if count:
                self.decide("profanity", "masked", f"{count} words that no source has")
            else:
                self.decide("profanity", "passed", "none found")
        text, removed = safety.safe_markdown(text, self.source_text)
        if removed:
            self.decide("markdown", "removed", ", ".join(removed))
        else:
            self.decide("markdown", "passed", "nothing active")
        return text

    def _citation(self, number: int) -> dict[str, Any]:
        source = self.sources[number]
        text = source.text
        if self.policy.mask_personal_data:
            text, kinds = personal_data.mask(text, text, self.steps.is_cpf)
            if kinds:
                self.decide("personal_data", "masked", f"in source [{number}]: {', '.join(kinds)}")
        return {
            "number": number,
            "id": source.id,
            "document": source.document,
            "title": source.title,
            "heading": source.heading,
            "text": text,
        }

    def _refuse(self, groundedness: float = 0.0) -> Result:
        return Result(refusal.text(self.language), [], round(groundedness, 3), True, self.decisions)


_CLOSING = re.compile(r"([.!?…:;]+)?\s*$")


def _with_citations(item: _Checked) -> Segment:
    """The part with its citations before its full stop: `… at once [1][2].`"""
    part = item.segment
    if not item.cited:
        return Segment(without_citations(part.text).strip(), part.mark, part.new_line, part.code)
    marks = "".join(f"[{number}]" for number in sorted(item.cited))
    if part.code:
        return Segment(f"{part.text}\n{marks}", part.mark, part.new_line, True)
    body = re.sub(r"\s+([.!?…])", r"\1", without_citations(part.text)).strip()
    closing = _CLOSING.search(body)
    end = closing[1] if closing and closing[1] else ""
    end = end[:1] if end else "."
    stem = body[: closing.start()] if closing else body
    return Segment(f"{stem.rstrip()} {marks}{end}", part.mark, part.new_line)


def _tidy(text: str) -> str:
    """One space between words and at most one empty line, outside code blocks."""
    if "```" in text or "~~~" in text:
        return text.strip()
    lines = [re.sub(r"[ \t]{2,}", " ", line.rstrip()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _shorten(text: str, is_cpf: personal_data.IsCpf, length: int = 60) -> str:
    """The start of a sentence, for a decision's detail, without personal data."""
    text, _ = personal_data.mask(" ".join(text.split()), is_cpf=is_cpf)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
