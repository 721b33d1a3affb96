"""How text becomes terms: one analysis a language, the same for passages and queries."""

from __future__ import annotations

import tantivy
from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

LANGUAGES = {"en": "english", "pt": "portuguese"}
"""Languages with a stemmer of their own: BCP 47 primary subtag → Snowball name."""

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


def analyzer(language: str, *, stopwords: bool = True) -> TextAnalyzer:
    """Lower case, accents folded to ASCII, Snowball stem (https://snowballstem.org).

    Folding comes before stemming: a Portuguese question typed without accents then gives the
    same terms as the passage. With `stopwords=False` the language's function words are left out.
    """
    builder = _words()
    if not stopwords:
        builder = builder.filter(Filter.stopword(LANGUAGES[language]))
    return builder.filter(Filter.ascii_fold()).filter(Filter.stemmer(LANGUAGES[language])).build()


class QueryAnalyzer:
    """Terms of a query in one language."""

    def __init__(self, language: str) -> None:
        self._all = analyzer(language)
        self._content = analyzer(language, stopwords=False)

    def terms(self, query: str) -> list[str]:
        """Content terms, with repetitions; all terms when there are no others ("the who")."""
        return self._content.analyze(query) or self._all.analyze(query)


def register(index: tantivy.Index) -> None:
    """Give `index` the analysers that its schema names."""
    for language in LANGUAGES:
        index.register_tokenizer(language, analyzer(language))
    index.register_tokenizer("words", word_analyzer())
