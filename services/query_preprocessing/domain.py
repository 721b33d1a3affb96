"""The steps from a typed question to a search query, in order, each reported.

No web framework, no network: `Preprocessor(...).run(query, history)` in a notebook does what the
service does, but for the rewriting by a language model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import intent as intents
from .expansion import Expander
from .language import LanguageDetector
from .lexicon import Lexicon
from .rewrite import Standalone, standalone
from .spelling import Choose, SpellingCorrector, SpellingOptions, apply, choose
from .text import Normalize, normalize
from .vocabulary import Vocabulary

STEPS = ("normalize", "language", "spelling", "intent", "rewrite", "expansion", "llm_rewrite")


@dataclass(frozen=True, slots=True)
class Options:
    """Which steps run unless a request says otherwise, and what they may change."""

    steps: frozenset[str] = frozenset(STEPS) - {"llm_rewrite"}
    search_corrected: bool = True
    search_expanded: bool = False
    default_language: str = "en"
    spelling: SpellingOptions = field(default_factory=SpellingOptions)


@dataclass(slots=True)
class Step:
    """What one step did. `applied` is whether it changed or found anything."""

    name: str
    applied: bool
    detail: str
    ms: float


@dataclass(slots=True)
class Preprocessed:
    """A question, understood. `search_query` is what retrieval should be asked."""

    query: str
    normalized: str
    language: str = "en"
    language_detected: str = "en"
    language_supported: bool = True
    language_confidence: float = 0.0
    suggestion: str | None = None
    intent: intents.Intent = "question"
    search_query: str = ""
    expansions: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


class Preprocessor:
    """Holds the dictionaries and patterns; `run` may be called from any thread.

    `cache` is a folder for compact dictionaries and tables, made on first use. `vocabulary`
    are the corpus's words; set it again whenever they change. `normalize`, `choose` and
    `standalone` are what the steps normalize, spelling and rewrite do with a text or a word.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        cache: Path | None = None,
        normalize: Normalize = normalize,
        choose: Choose = choose,
        standalone: Standalone = standalone,
    ) -> None:
        self.options = options or Options()
        self._clean, self._choose, self._standalone = normalize, choose, standalone
        self._lexicon = Lexicon.load(cache)
        self._languages = LanguageDetector(self._lexicon, cache)
        self._expander = Expander()
        self.set_vocabulary(vocabulary or Vocabulary())

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Use these corpus words from the next `run` on."""
        self._vocabulary = vocabulary
        self._speller = SpellingCorrector(
            self._lexicon, vocabulary, self.options.spelling, self._choose
        )

    def run(
        self, query: str, history: Sequence[str] = (), steps: Mapping[str, bool] | None = None
    ) -> Preprocessed:
        """Preprocess `query`; `history` holds earlier questions, oldest first.

        `steps` switches single steps on or off for this call. Raises ValueError for a step that
        does not exist.
        """
        on = {name: name in self.options.steps for name in STEPS}
        for name, wanted in (steps or {}).items():
            if name not in on:
                raise ValueError(f"there is no step {name!r}; the steps are {', '.join(STEPS)}")
            on[name] = wanted
        result = Preprocessed(query=query, normalized=query, search_query=query)
        for name in STEPS[:-1]:
            started = time.perf_counter()
            applied, detail = False, "switched off"
            if on[name]:
                applied, detail = getattr(self, f"_{name}")(result, history)
            elapsed = (time.perf_counter() - started) * 1000
            result.steps.append(Step(name, applied, detail, round(elapsed, 3)))
        return result

    def _normalize(self, result: Preprocessed, history: Sequence[str]) -> tuple[bool, str]:
        result.normalized, changes = self._clean(result.query)
        result.search_query = result.normalized
        return bool(changes), ", ".join(changes) or "nothing to change"

    def _language(self, result: Preprocessed, history: Sequence[str]) -> tuple[bool, str]:
        fallback = self.options.default_language
        if history:
            fallback = self._languages.detect(history[-1], fallback).language
        found = self._languages.detect(result.normalized, fallback)
        result.language, result.language_detected = found.language, found.detected
        result.language_confidence, result.language_supported = found.confidence, found.supported
        detail = found.detected
        if not found.supported:
            detail += ", which is answered in English"
        return True, detail

    def _spelling(self, result: Preprocessed, history: Sequence[str]) -> tuple[bool, str]:
        if not result.language_supported:
            return False, f"no dictionary for {result.language_detected}"
        corrections = self._speller.correct(result.normalized, result.language)
        if not corrections:
            return False, "nothing to correct"
        result.suggestion = apply(result.normalized, corrections)
        if self.options.search_corrected:
            result.search_query = result.suggestion
        return True, ", ".join(f"{item.typed} → {item.corrected}" for item in corrections)

    def _intent(self, result: Preprocessed, history: Sequence[str]) -> tuple[bool, str]:
        judged = intents.judge(result.search_query, result.language, history, self._vocabulary)
        result.intent = judged.intent
        changed = judged.question not in ("", result.search_query)
        if judged.question:
            result.search_query = judged.question
        return changed or judged.intent != "question", judged.detail or judged.intent

    def _rewrite(self, result: Preprocessed, history: Sequence[str]) -> tuple[bool, str]:
        if result.intent != "follow_up":
            return False, "stands alone"
        result.search_query, subject = self._standalone(
            result.search_query, result.language, history
        )
        return bool(subject), f"subject taken along: {subject}" if subject else "no subject found"

    def _expansion(self, result: Preprocessed, history: Sequence[str]) -> tuple[bool, str]:
        if result.intent in ("small_talk", "harmful"):
            return False, "nothing to search for"
        result.expansions = self._expander.expand(result.search_query, result.language)
        if not result.expansions:
            return False, "no entry matches"
        detail = ", ".join(result.expansions)
        if not self.options.search_expanded:
            return True, f"{detail} (not added to the search query)"
        result.search_query += f" ({detail})"
        return True, detail
