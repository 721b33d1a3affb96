"""What the person wants: an answer, small talk, something else altogether, or to do harm."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from .lexicon import LANGUAGES
from .text import fold
from .vocabulary import Vocabulary

Intent = Literal["question", "follow_up", "small_talk", "out_of_scope", "harmful"]

_SENTENCE_END = re.compile(r"(?<=[.!?;\n])\s+")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']{8,}'|`[^`]*`")
_WORD = re.compile(r"[^\W_]+")
_JOINT = re.compile(r",|\b(?:and|but|or|if|because|when|e|mas|ou|se|porque|quando)\b")
_WORD_BREAKS = re.compile(r"[^\w'-]+")
# Where a clause can begin inside a sentence.
_CLAUSE = re.compile(
    r"(?:[,;:–—-]\s*|\b)(?:(?:and|then|also|but|or|before that|after that|first|next|finally"
    r"|instead|e|entao|mas|ou|tambem|depois|antes de responder|em seguida|agora|primeiro|por fim"
    r"|alem disso|please|por favor|now|ah|oh|btw|by the way|a proposito),?\s+)+|[,;:–—]\s+|^\s*",
    re.IGNORECASE,
)


_REGULAR = ("small_talk", "injection", "harmful", "continues", "points_back", "asks")
# What a sentence may begin with when the one before it was cut away.
_CONNECTIVE = re.compile(
    r"^(?:(?:ah|oh|and|also|but|so|then|now|e|mas|entao|então|agora|tambem|também|alem disso"
    r"|além disso|by the way|a proposito|a propósito)[,\s]+)+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Judged:
    """The intent, why, and the question that is left once orders to the system are cut away."""

    intent: Intent
    detail: str
    question: str


@dataclass(frozen=True, slots=True)
class _Patterns:
    small_talk: re.Pattern[str]
    injection: re.Pattern[str]
    harmful: re.Pattern[str]
    continues: re.Pattern[str]
    points_back: re.Pattern[str]
    asks: re.Pattern[str]
    elsewhere: frozenset[str]
    stopwords: frozenset[str]

    @classmethod
    def read(cls, language: str) -> _Patterns:
        data = files(__package__) / "data"
        raw = tomllib.loads((data / f"intents_{language}.toml").read_text("utf-8"))
        stopwords = (data / f"stopwords_{language}.txt").read_text("utf-8")

        def any_of(name: str) -> re.Pattern[str]:
            patterns = raw[name] if isinstance(raw[name], list) else [raw[name]]
            return re.compile("|".join(f"(?:{p})" for p in patterns), re.IGNORECASE)

        return cls(
            **{name: any_of(name) for name in _REGULAR},
            elsewhere=frozenset(fold(word) for word in raw["elsewhere"].split()),
            stopwords=frozenset(fold(word) for word in stopwords.split()),
        )


PATTERNS = {language: _Patterns.read(language) for language in LANGUAGES}


def content_words(text: str, language: str) -> list[str]:
    """Words of `text` that carry meaning, folded, in order."""
    stopwords = PATTERNS[language].stopwords
    return [word for word in _WORD.findall(fold(text)) if word not in stopwords]


def judge(text: str, language: str, history: Sequence[str], vocabulary: Vocabulary) -> Judged:
    """The intent of `text`. Patterns of both languages are tried: people mix them."""
    for patterns in PATTERNS.values():
        if patterns.harmful.search(_plain(text)):
            return Judged("harmful", "asks for something harmful or for private data", "")
    question, removed = strip_injection(text)
    if removed and not question:
        return Judged("harmful", f"only gives orders to the system: {'; '.join(removed)}", "")
    note = f"orders to the system removed: {'; '.join(removed)}" if removed else ""
    question, chatted = _strip_small_talk(question)
    if not question:
        return Judged("small_talk", "greeting, thanks or chat", text)
    if chatted and not note:
        note = f"greeting removed: {chatted}"
    if history and (why := follows_up(question, language)):
        return Judged("follow_up", "; ".join(part for part in (why, note) if part), question)
    if why := _out_of_scope(question, language, vocabulary):
        return Judged("out_of_scope", why, question)
    return Judged("question", note, question)


def _plain(text: str) -> str:
    """Accents and case folded, letter for letter: positions stay those of `text`."""
    if text.isascii():
        return text.lower()
    folded = "".join(fold(char) or char for char in text)
    return folded if len(folded) == len(text) else text.lower()


def strip_injection(text: str) -> tuple[str, list[str]]:
    """`text` without clauses that give orders to the system, and those clauses.

    Quoted orders are somebody's subject and stay. From an order on, the rest of its sentence
    goes too, unless it asks something.
    """
    kept: list[str] = []
    removed: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        rest = _cut(sentence, removed)
        if rest:
            kept.append(rest)
    question = " ".join(kept).strip()
    if removed:
        question = _CONNECTIVE.sub("", question)
    if removed and not any(content_words(question, code) for code in LANGUAGES):
        question = ""
    if removed and question and not _asks(question) and len(question.split()) < 4:
        question = ""
    return question, removed


def _asks(text: str) -> bool:
    plain = _plain(text).lstrip(" ,;:-")
    return "?" in text or any(patterns.asks.match(plain) for patterns in PATTERNS.values())


def _cut(sentence: str, removed: list[str]) -> str:
    """What stays of one sentence; what goes is added to `removed`."""
    plain = _QUOTED.sub(lambda match: " " * len(match[0]), _plain(sentence))
    for clause in _CLAUSE.finditer(plain):
        if not any(p.injection.match(plain, clause.end()) for p in PATTERNS.values()):
            continue
        before = sentence[: clause.start()].rstrip(" ,;:-–—")
        after = ""
        for later in _CLAUSE.finditer(plain, clause.end() + 1):
            tail = plain[later.end() :]
            if any(p.injection.match(tail) for p in PATTERNS.values()):
                continue
            if any(p.asks.match(tail) for p in PATTERNS.values()) and len(tail.split()) > 2:
                after = sentence[later.end() :]
                break
        if before and not content_words(before, "en") and not content_words(before, "pt"):
            before = ""
        end = len(sentence) - len(after)
        removed.append(sentence[clause.end() : end].strip(" ,;:.!?"))
        after = _cut(after, removed) if after else ""
        if before and sentence.rstrip().endswith("?") and not after:
            before += "?"
        return " ".join(part for part in (before, after) if part)
    return sentence


def _strip_small_talk(text: str) -> tuple[str, str]:
    """What is left of `text` without its sentences of small talk, and the first of those."""
    kept, chat = [], ""
    for sentence in re.split(r"(?<=[.!?\n])\s+", text):
        parts = [sentence]
        # "Hi, what is BM25?": the greeting ends at the comma.
        head, comma, tail = sentence.partition(",")
        if comma and not _is_small_talk(sentence) and _is_small_talk(head):
            chat = chat or head.strip()
            parts = [tail.strip()]
        for part in parts:
            if _is_small_talk(part):
                chat = chat or part.strip()
            elif part:
                kept.append(part)
    return " ".join(kept), chat


def _is_small_talk(sentence: str) -> bool:
    plain = _WORD_BREAKS.sub(" ", _plain(sentence)).strip()
    return bool(plain) and any(p.small_talk.fullmatch(plain) for p in PATTERNS.values())


def follows_up(question: str, language: str) -> str:
    """Why the question is not understood without the one before; empty when it stands alone."""
    patterns = PATTERNS[language]
    plain = _plain(question).strip(" ¿¡\"'")
    if patterns.continues.match(plain):
        return "opens like a continuation"
    words = content_words(question, language)
    if not words:
        return "has no content words of its own"
    plain = _QUOTED.sub(" ", plain)
    if match := patterns.points_back.search(plain):
        *earlier, clause = _JOINT.split(plain[: match.start()])
        before = content_words(clause, language)
        # "What is a saga and when does it fail?" explains its own pronoun.
        if len(before) <= 1 and not content_words(" ".join(earlier), language):
            return f'"{match[0].strip()}" points back'
    return ""


def _out_of_scope(question: str, language: str, vocabulary: Vocabulary) -> str:
    """Why the question is plainly about something else; empty when in doubt."""
    if len(vocabulary) == 0:
        return ""
    words = content_words(question, language)
    known = [word for word in words if vocabulary.as_written(word) or word in vocabulary]
    strange = [word for word in words if word in PATTERNS[language].elsewhere and word not in known]
    if strange and len(known) * 2 <= len(words):
        return f"about {', '.join(strange)}, of which no passage speaks"
    return ""
