"""Words as terms that can be compared: lower case, accents folded, stemmed, stop words left out."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from importlib.resources import files

import Stemmer

_STEMMERS = {"en": "english", "pt": "portuguese"}
_WORD = re.compile(r"[^\W_]+")


def _read_stopwords(language: str) -> frozenset[str]:
    text = (files(__package__) / "data" / f"stopwords_{language}.txt").read_text("utf-8")
    return frozenset(fold(word) for word in text.split())


def fold(text: str) -> str:
    """Lower case without accents."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.lower())
    return "".join(char for char in plain if not unicodedata.combining(char))


STOPWORDS = {language: _read_stopwords(language) for language in _STEMMERS}
_STEM = {language: Stemmer.Stemmer(name, 0) for language, name in _STEMMERS.items()}


@lru_cache(maxsize=20_000)
def _stem(word: str, language: str) -> str:
    stemmed: str = _STEM[language].stemWord(word)
    return stemmed


def terms(text: str, language: str) -> list[str]:
    """Content terms of `text`, in order, with repetitions.

    A compound such as `ef_search` or `top-k` gives its parts. A language without a stemmer of
    its own is treated as English.
    """
    language = language if language in _STEMMERS else "en"
    stop = STOPWORDS[language]
    found = []
    for word in _WORD.findall(fold(text)):
        if word in stop or (len(word) == 1 and not word.isdigit()):
            continue
        found.append(_stem(word, language))
    return found


def words(text: str) -> list[str]:
    """All words, folded, for comparing texts with each other."""
    return _WORD.findall(fold(text))
