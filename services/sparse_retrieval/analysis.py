"""How text becomes terms: one analysis a language, the same for passages and queries."""

from __future__ import annotations

from collections import Counter

import tantivy
from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

LANGUAGES = {"en": "english", "pt": "portuguese"}
"""Languages with a stemmer of their own: BCP 47 primary subtag → Snowball name."""

FIELDS = {"en": ("en",), "pt": ("pt", "pt_folded")}
"""Index fields of each language. A `_folded` field loses its accents before it is stemmed.

The Portuguese stemmer needs accents (`organizações` and `organização` share a stem, `organizacoes`
and `organizacao` do not), but people type without them. So Portuguese is indexed both ways.
"""

_LONGEST_TERM = 64


def _words() -> TextAnalyzerBuilder:
    """Runs of letters and digits (Unicode), lower case. Longer than 64 bytes is not a word."""
    return (
        TextAnalyzerBuilder(Tokenizer.simple())
        .filter(Filter.remove_long(_LONGEST_TERM + 1))
        .filter(Filter.lowercase())
    )


def word_analyzer() -> TextAnalyzer:
    """Words as written, for the vocabulary."""
    return _words().build()


def analyzer(field: str, *, stopwords: bool = True) -> TextAnalyzer:
    """Lower case, Snowball stem (https://snowballstem.org), accents folded to ASCII.

    With `stopwords=False` the language's function words are left out.
    """
    language, _, folded = field.partition("_")
    builder = _words()
    if not stopwords:
        builder = builder.filter(Filter.stopword(LANGUAGES[language]))
    if folded:
        builder = builder.filter(Filter.ascii_fold())
    return builder.filter(Filter.stemmer(LANGUAGES[language])).filter(Filter.ascii_fold()).build()


class QueryAnalyzer:
    """The terms of a query in one language."""

    def __init__(self, language: str) -> None:
        fields = FIELDS[language]
        self._all = [(field, analyzer(field)) for field in fields]
        self._content = [(field, analyzer(field, stopwords=False)) for field in fields]

    def words(self, query: str) -> Counter[tuple[tuple[str, str], ...]]:
        """Each word as its (field, term) pairs, with the number of times it is there.

        Content words only; all words when there are no others ("the who").
        """
        return _words_of(query, self._content) or _words_of(query, self._all)


def _words_of(
    query: str, analyzers: list[tuple[str, TextAnalyzer]]
) -> Counter[tuple[tuple[str, str], ...]]:
    # No filter after the first two adds or drops a token: the lists run in step.
    terms = [[(field, term) for term in each.analyze(query)] for field, each in analyzers]
    return Counter(zip(*terms, strict=True))


def register(index: tantivy.Index) -> None:
    """Give `index` the analysers that its schema names."""
    for fields in FIELDS.values():
        for field in fields:
            index.register_tokenizer(field, analyzer(field))
    index.register_tokenizer("words", word_analyzer())
