"""Sentences, terms and numbers of a text, in English and Portuguese."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import Stemmer

LANGUAGES = ("en", "pt")

_WORD = re.compile(r"[^\W_]+(?:[.'’_/-][^\W_]+)*")
_PART = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?![\w])|\d+(?:[.,]\d+)*")
_CITATION = re.compile(r"\s*\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
# A sentence ends at .!?… (and the citations right after it), before white space and something
# that can begin a sentence. Abbreviations and initials do not end one.
_END = re.compile(
    r"(?<=[.!?…])(?:[\"'”’)\]]*)(?:\s*\[\d{1,3}(?:\s*[,;]\s*\d{1,3})*\]\.?)*"
    r"(?=\s+[\"'“‘(*`]*[A-ZÀ-Ý0-9])"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|fig|eq|art|arts|no|nº|p|pp|ch|cap|sec|dr|dra|sr|sra|mr|mrs|ms"
    r"|ex|p\. ?ex|inc|ltd|approx|aprox)|\b[A-Z])\.$",
    re.I,
)
_FENCE = re.compile(r"^\s*(```|~~~)")
_LIST_ITEM = re.compile(r"^(\s*(?:[-*+•]|\d{1,2}[.)])\s+)(.*)$")

_STOPWORDS = {
    "en": """a about above after again against all also am an and any are as at be because been
    before being below between both but by can cannot could did do does doing down during each
    either else ever every few for from further get gets had has have having he her here hers him
    his how however i if in into is it its itself just let may me might more most much must my no
    nor not of off often on once one only or other our out over own per rather same shall she
    should so some such than that the their them then there these they this those through thus to
    too under until up upon us very was we were what when where whether which while who whom whose
    why will with within without would yes yet you your""",
    "pt": """a à ao aos as às ainda além algum alguma algumas alguns ante antes após aquela
    aquelas aquele aqueles aquilo assim até cada com como contra cujo cuja cujas cujos da das de
    dela delas dele deles desde dessa desse desta deste disso disto do dos e é ela elas ele eles
    em enquanto entre era eram essa essas esse esses esta está estão estar estas este estes eu foi
    foram fosse for há isso isto já lá lhe lhes logo mais mas me mesma mesmas mesmo mesmos meu
    minha muita muitas muito muitos na nas nem nessa nesse nesta neste no nos nós nossa nosso não
    num numa o onde os ou outra outras outro outros para pela pelas pelo pelos pode podem por
    porém porque pouca pouco pois qual quais qualquer quando quanto quanta quantas quantos que
    quem se seja sejam sem sempre ser será serão seu seus si sido sob sobre sua suas só também tal
    tanto te tem têm tendo ter tinha toda todas todo todos tu tudo um uma umas uns vai você vocês
    vos""",
}
# So common in any text that finding one in a source says next to nothing: the words with more
# than five occurrences in ten thousand in pyspellchecker's frequency lists (film subtitles),
# without those that no technical question has, and the words that questions are made of.
_COMMON = {
    "en": """always another anything around ask away back believe best better big bring call came
    care change come day difference different even everything example exactly feel find first found
    give go good great guys happen happens hear help hold hope keep kind know last leave left life
    like little live long look lot love made make man many matter maybe mean meet move name need
    never new next normally nothing now old people place play point put real really reason right
    run said saw say see seems seen show someone something start stay still stop sure take talk
    tell thing think thought time told took trying turn typical use used usual usually wait want
    way went whole word work works wrong year years""",
    "pt": """acabar acho acontece aconteceu acredito agora ajudar algo alguém anos apenas aqui bem
    boa bom causa certeza chamar chegar coisa começar conta continuar costuma dar deixar depois
    deve dia diferença diferente diz dizer encontrar exatamente exemplo falar fazer faz ficar fim
    fora forma geralmente gosto grande hora importante ir levar lugar maneira melhor menos motivo
    nada nenhum ninguém nome normalmente novo nunca ouvir palavra parece parte passar pedir pensar
    perder pessoas possível preciso precisa primeira primeiro problema procura quero querer razão
    sabe saber sair sentir serve talvez tempo tenho tentar tipo tirar tomar trabalho tratar usar
    usa vai vale vem ver vez vezes vida vir viver voltar""",
}
_NUMBER_WORDS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty",
    "pt": "zero um dois três quatro cinco seis sete oito nove dez onze doze treze quatorze quinze "
    "dezesseis dezessete dezoito dezenove vinte",
}
_MORE_NUMBER_WORDS = {
    "en": {"thirty": 30, "forty": 40, "fifty": 50, "hundred": 100, "thousand": 1000},
    "pt": {
        "duas": 2,
        "catorze": 14,
        "trinta": 30,
        "quarenta": 40,
        "cinquenta": 50,
        "cem": 100,
        "mil": 1000,
    },
}
# "One" and "um/uma" are articles and pronouns far more often than figures.
_NOT_FIGURES = {"one", "um"}


_COMBINING = re.compile("[\u0300-\u036f]+")
_ONE_TO_ONE = {
    code: folded
    for code in range(0x80, 0x250)
    if len(folded := _COMBINING.sub("", unicodedata.normalize("NFKD", chr(code).lower()))) == 1
}


def fold(text: str) -> str:
    """Lower case, without accents."""
    lowered = text.lower()
    if lowered.isascii():
        return lowered
    return _COMBINING.sub("", unicodedata.normalize("NFKD", lowered))


def fold_in_place(text: str) -> str:
    """As `fold`, but of the same length, so that offsets agree: characters that fold to several
    (a ligature) or are far from Latin stay as they are."""
    lowered = text.lower()
    return (lowered if len(lowered) == len(text) else text).translate(_ONE_TO_ONE)


_STOP = {
    language: frozenset(fold(word) for word in words.split())
    for language, words in _STOPWORDS.items()
}
_FIGURES = {
    language: {
        fold(word): float(value)
        for word, value in [
            *((word, number) for number, word in enumerate(words.split())),
            *_MORE_NUMBER_WORDS[language].items(),
        ]
        if word not in _NOT_FIGURES
    }
    for language, words in _NUMBER_WORDS.items()
}
_STEMMERS = {"en": Stemmer.Stemmer("english"), "pt": Stemmer.Stemmer("portuguese")}


def is_common(term: str, language: str) -> bool:
    """Whether a stem is one of the language's most frequent content words."""
    return term in _common_stems()[language]


@lru_cache(maxsize=1)
def _common_stems() -> dict[str, frozenset[str]]:
    return {
        language: frozenset(stem(fold(word), language) for word in words.split())
        for language, words in _COMMON.items()
    }


def guess_language(text: str, default: str) -> str:
    """The language with more function words in the text; `default` unless it is clear."""
    words = _PART.findall(fold(text))
    counts = {language: sum(word in _STOP[language] for word in words) for language in LANGUAGES}
    other = "pt" if default == "en" else "en"
    return other if counts[other] >= counts[default] + 3 else default


def language_of(language: str) -> str:
    """`pt` for any Portuguese tag, else `en`."""
    return "pt" if language.lower().startswith("pt") else "en"


@lru_cache(maxsize=50_000)
def stem(word: str, language: str) -> str:
    """Snowball stem of a folded word; a word with a digit stays as it is."""
    if any(char.isdigit() for char in word):
        return word
    return str(_STEMMERS[language].stemWord(word))


def terms(text: str, language: str) -> list[str]:
    """Stems of the content words: no function words, no citations, no bare numbers."""
    found = []
    for match in _PART.finditer(fold(_CITATION.sub(" ", text))):
        word = match[0]
        if word in _STOP[language] or word.isdigit() or word in _FIGURES[language]:
            continue
        if len(word) > 1 or not word.isalpha():
            found.append(stem(word, language))
    return found


def numbers(text: str, language: str) -> list[frozenset[float]]:
    """Each number of the text, as the set of values that it may have.

    `1.000` is a thousand in Portuguese and one in English, and engineers write both in both: a
    number that can be read in two ways has both values.
    """
    text = _CITATION.sub(" ", text)
    found = [_values(match[0]) for match in _NUMBER.finditer(text)]
    for match in _PART.finditer(fold(text)):
        if (value := _FIGURES[language].get(match[0])) is not None:
            found.append(frozenset({value}))
    return found


@lru_cache(maxsize=10_000)
def _values(text: str) -> frozenset[float]:
    readings = {
        text.replace(",", ""),  # English: 1,000.5
        text.replace(".", "").replace(",", "."),  # Portuguese: 1.000,5
        text.replace(",", "."),
    }
    values = set()
    for reading in readings:
        try:
            values.add(float(reading))
        except ValueError:  # 1.2.3 is a version, compared as it is written
            continue
    return frozenset(values) or frozenset({float(hash(text) % 10**9) + 0.5})


def without_citations(text: str) -> str:
    return _CITATION.sub("", text)


def citations(text: str) -> list[int]:
    """Numbers cited in the text, in order, each once."""
    found = [int(n) for match in _CITATION.finditer(text) for n in re.findall(r"\d+", match[1])]
    return list(dict.fromkeys(found))


def sentences(text: str) -> list[str]:
    """Sentences of one paragraph, each with the citations that follow it."""
    found, start = [], 0
    for match in _END.finditer(text):
        if _ABBREVIATION.search(text[start : match.start()][-12:]):
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    found.append(text[start:].strip())
    merged: list[str] = []
    leading = ""
    for sentence in filter(None, found):
        if _CITATION.sub("", " " + sentence).strip(" .,:;"):
            merged.append(leading + sentence)
            leading = ""
        # Citations alone belong to the sentence before them, or to the first one.
        elif merged:
            merged[-1] += " " + sentence
        else:
            leading += sentence.rstrip(" .,:;") + " "
    return merged or [leading.strip()] * bool(leading)


@dataclass(slots=True)
class Segment:
    """A sentence or a code block of an answer, and how it began: a list mark, or a new line."""

    text: str
    mark: str = ""
    new_line: bool = False
    code: bool = False


def segments(answer: str) -> list[Segment]:
    """The answer in parts that can be kept or dropped one by one."""
    return list(_segments(answer.strip()))


def _segments(answer: str) -> Iterator[Segment]:
    fence: list[str] | None = None
    for line in answer.split("\n"):
        if fence is not None:
            fence.append(line)
            if _FENCE.match(line):
                yield Segment("\n".join(fence), new_line=True, code=True)
                fence = None
            continue
        if _FENCE.match(line):
            fence = [line]
            continue
        item = _LIST_ITEM.match(line)
        mark, body = (item[1], item[2]) if item else ("", line.strip())
        for index, sentence in enumerate(sentences(body)):
            yield Segment(sentence, mark if index == 0 else "", new_line=index == 0)
    if fence is not None:  # cut off by the token limit
        yield Segment("\n".join([*fence, "```"]), new_line=True, code=True)


def join(parts: list[Segment]) -> str:
    """The text of segments again."""
    text = ""
    for part in parts:
        if text:
            text += "\n" if part.new_line else " "
        text += part.mark + part.text
    return text


@lru_cache(maxsize=1)
def glossary() -> dict[str, frozenset[str]]:
    """Stems of one language to stems of the other, from `glossary.tsv` (English, Portuguese)."""
    pairs: dict[str, set[str]] = {}
    for line in (Path(__file__).parent / "glossary.tsv").read_text("utf-8").splitlines():
        english, _, portuguese = line.partition("\t")
        lefts = [stem(fold(word), "en") for word in english.split("|")]
        rights = [stem(fold(word), "pt") for word in portuguese.split("|")]
        for left in lefts:
            pairs.setdefault("en:" + left, set()).update(rights)
        for right in rights:
            pairs.setdefault("pt:" + right, set()).update(lefts)
    return {name: frozenset(values) for name, values in pairs.items()}
