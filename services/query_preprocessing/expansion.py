"""Extra search terms out of a curated list of acronyms and synonyms."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files

from .lexicon import LANGUAGES
from .text import fold

_WORD = re.compile(r"[^\W_]+")
# Everyday words that are acronyms only in capitals.
_CASE_MATTERS = frozenset({"cap", "map", "rest", "pr", "ann", "ia", "ws", "pq"})


class Expander:
    """Adds the long form of an acronym, and the corpus's word for a synonym."""

    def __init__(self) -> None:
        self._entries: dict[str, list[tuple[re.Pattern[str], list[str]]]] = {}
        for language in LANGUAGES:
            raw = tomllib.loads(
                (files(__package__) / "data" / f"expansions_{language}.toml").read_text("utf-8")
            )
            self._entries[language] = [
                (_whole_word(key), added)
                for table in ("acronyms", "synonyms")
                for key, added in raw[table].items()
            ]

    def expand(self, query: str, language: str) -> list[str]:
        """Terms to search for beside `query`; none that it already holds."""
        folded = fold(query)
        have = set(_WORD.findall(folded))
        found: list[str] = []
        for pattern, added in self._entries[language]:
            # Without a match in small letters there is none in capitals either.
            if pattern.search(query):
                found += [
                    term
                    for term in added
                    if not set(_WORD.findall(fold(term))) <= have and term not in found
                ]
        return found


def _whole_word(key: str) -> re.Pattern[str]:
    if key in _CASE_MATTERS:
        return re.compile(rf"(?<!\w){re.escape(key.upper())}(?!\w)")
    return re.compile(rf"(?<!\w){re.escape(key)}(?!\w)", re.IGNORECASE)
