"""Which language a question is in, right even for three words."""

from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from .lexicon import LANGUAGES, Lexicon
from .text import WORD

SUPPORTED = LANGUAGES
_LATIN = ("en", "pt", "es", "fr", "de", "it", "nl")
_OTHER_SCRIPTS = ("ru", "uk", "bg", "el", "he", "ar", "fa", "hi", "th", "zh", "ja", "ko")
# A word as common as one in 2^24 tells nothing; the commonest function words count about 3.
_RARE, _SCALE = 24.0, 6.0
_FUNCTION_WORD = 3.0
_LANGID_WEIGHT, _LANGID_FLOOR = 0.7, -8.0
_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Detected:
    """`detected` is any language; `language` the one to answer in. `confidence` is 0 to 1."""

    language: str
    detected: str
    confidence: float

    @property
    def supported(self) -> bool:
        return self.detected in SUPPORTED


class LanguageDetector:
    """Adds up two kinds of evidence: py3langid's byte n-grams, and the words themselves.

    N-grams alone err on short questions full of names and English terms; word frequencies alone
    know two languages. Of the other Latin-script languages the function words are known.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._langid = _load_langid()
        raw = (files(__package__) / "data" / "function_words.json").read_text("utf-8")
        self._function_words = {
            code: frozenset(words.split()) for code, words in json.loads(raw).items()
        }

    def detect(self, text: str, fallback: str = "en") -> Detected:
        """The language of `text`; `fallback` ("en" or "pt") decides when nothing else does."""
        ranked = dict(self._langid.rank(text))
        words = [word.lower() for word in WORD.findall(text)]
        if not words:
            return Detected(fallback, fallback, 0.0)
        if _foreign_script(text):
            best = max(_OTHER_SCRIPTS, key=lambda code: ranked.get(code, 0.0))
            return Detected("en", best, 1.0)
        scores = {
            code: _LANGID_WEIGHT * max(_LANGID_FLOOR, math.log(ranked.get(code, 0.0) + 1e-9))
            for code in _LATIN
        }
        evidence = dict.fromkeys(_LATIN, 0.0)
        for word in words:
            for code in SUPPORTED:
                found = self._lexicon.frequency(word, code)
                if found is not None:
                    evidence[code] += max(0.0, _RARE + found) / _SCALE
            for code, function_words in self._function_words.items():
                if word in function_words:
                    evidence[code] += _FUNCTION_WORD
        evidence[fallback] += 0.5
        totals = {code: scores[code] + evidence[code] for code in _LATIN}
        best = max(totals, key=lambda code: totals[code])
        near = max(SUPPORTED, key=lambda code: totals[code])
        # A foreign language needs words of its own, and a clear lead: names and loan words in an
        # English or Portuguese question must not turn it into French.
        if best not in SUPPORTED and (
            totals[best] - totals[near] < _MARGIN or evidence[best] < _FUNCTION_WORD
        ):
            best = near
        share = sum(math.exp(min(0.0, total - totals[best])) for total in totals.values())
        confidence = round(math.exp(0) / share, 3)
        return Detected(best if best in SUPPORTED else "en", best, confidence)


@cache
def _load_langid() -> Any:
    """py3langid's own model, cut down to the languages that matter here. Loading takes a second,
    and nothing changes it, so that all detectors of a process share it."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([*_LATIN, *_OTHER_SCRIPTS])
    identifier._full_model = None  # 28 MB: the languages left out
    return identifier


def _foreign_script(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    latin = sum(char.isascii() or "LATIN" in unicodedata.name(char, "") for char in letters)
    return latin * 2 < len(letters)
