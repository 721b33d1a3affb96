"""Which language a question is in, right even for three words."""

from __future__ import annotations

import json
import math
import mmap
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

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

    def __init__(self, lexicon: Lexicon, cache: Path | None = None) -> None:
        self._lexicon = lexicon
        self._langid = _load_langid(cache)
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
def _load_langid(folder: Path | None) -> Any:
    """py3langid's own model, cut down to the languages that matter here.

    With a `folder`, the cut model is kept there: it loads in a tenth of the time, and its largest
    table (39 MB) is mapped into memory, where only the few pages in use count. Another process
    makes the files, because the memory that it takes would stay with this one. Nothing changes a
    model, so that all detectors of a process share it.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    if folder is None:
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        identifier.set_languages([*_LATIN, *_OTHER_SCRIPTS])
        identifier._full_model = None  # 28 MB: the languages left out
        return identifier
    table, rest = (folder / f"langid-{version('py3langid')}.{end}" for end in ("bin", "npz"))
    if not rest.exists():
        subprocess.run([sys.executable, "-m", __name__, str(table), str(rest)], check=True)
    with table.open("rb") as opened:
        mapped = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    with np.load(rest) as arrays:
        return LanguageIdentifier(
            arrays["ptc"],
            arrays["pc"],
            arrays["classes"].tolist(),
            mapped.cast("H") if str(arrays["typecode"]) == "H" else mapped.cast("I"),
            arrays["output"].tolist(),
            norm_probs=True,
            tk_row=arrays["row"].tolist(),
        )


def _keep(table: Path, rest: Path) -> None:
    """Write the cut model: the large table as it is, everything else into one archive."""
    table.parent.mkdir(parents=True, exist_ok=True)
    identifier = _load_langid(None)
    table.write_bytes(identifier.tk_nextmove)
    partial = rest.with_suffix(".partial.npz")
    np.savez(
        partial,
        ptc=identifier.nb_ptc,
        pc=identifier.nb_pc,
        classes=np.array(identifier.nb_classes),
        typecode=np.array(identifier.tk_nextmove.typecode),
        output=np.array(identifier.tk_output, dtype=np.int32),
        row=np.array(identifier.tk_row),
    )
    partial.replace(rest)


def _foreign_script(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    latin = sum(char.isascii() or "LATIN" in unicodedata.name(char, "") for char in letters)
    return latin * 2 < len(letters)


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), Path(sys.argv[2]))
