"""What must not leave in an answer: the prompt's own text, profanity, active Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

import nh3
from glin_profanity.data.dictionary import DictionaryLoader
from markdown_it import MarkdownIt
from markdown_it.token import Token

from .text import fold, fold_in_place

# -- the prompt's own text ----------------------------------------------------------------

# What gives a prompt away: chat control tokens, the prompt's delimiters, a role at the start of
# a line, the instructions in the words of our prompts and in the usual words of others.
_LEAK = re.compile(
    r"""
      <\|[^|<>]{1,40}\|> | </?sources?> | \[/?INST\]
    | ^\s*(?:system|assistant|user|sistema|assistente|usu[aá]rio)\s*:
    | ^\s*(?:question|pergunta|answer|resposta|sources|fontes)\s*:
    | \byou\ answer\ questions\ from\ numbered\ sources
    | \bvoc[eê]\ responde\ a\ perguntas\ a\ partir\ de\ fontes\ numeradas
    | \b(?:use\ only\ what|only\ use\ what)\ the\ sources\ say
    | \buse\ somente\ o\ que\ as\ fontes\ dizem
    | \banswer\ the\ question\ from\ the\ numbered\ sources
    | \bresponda\ [aà]\ pergunta\ com\ as\ fontes\ numeradas
    | \b(?:after\ each\ sentence\ cite|depois\ de\ cada\ frase\ cite)\b
    | \b(?:is\ data,\ not\ instructions|[eé]\ dado,\ n[aã]o\ instru[cç][aã]o)
    | \b(?:copy\ numbers\ and\ names\ exactly|copie\ n[uú]meros\ e\ nomes\ exatamente)
    | \b(?:my|these\ are\ my|the)\ (?:system\ prompt|instructions\ (?:are|say|were))
    | \b(?:meu\ prompt\ de\ sistema|minhas\ instru[cç][oõ]es\ (?:s[aã]o|dizem))
    | \bas\ an?\ (?:ai|large)?\ ?(?:language\ model|ai)\b | \bcomo\ (?:um\ )?modelo\ de\ linguagem
    """,
    re.I | re.X,
)
_OPENING = re.compile(
    r"""
      \s*(?:short\ )?(?:answer|resposta)(?:\ curta)?\s*:\s*
    | \s*(?:based\ on|according\ to)\ (?:the\ information\ (?:provided\ |given\ )?(?:in|by|from)\ )?
      (?:the|these)\ (?:(?:numbered|provided|given)\ )?(?:sources?|text|context|documents?)
      (?:\ (?:provided|given|above))?\s*,\s*
    | \s*(?:com\ base|de\ acordo|segundo)(?:\ (?:em|com|n))?\s*
      (?:n?as|n?os|n?a|n?o)\ (?:informa[cç][oõ]es\ (?:fornecidas|das?|n)\s*(?:n?as)?\ )?
      (?:fontes?|textos?|contexto|documentos?)(?:\ (?:fornecid|numerad|dad)[ao]s?)?\s*,\s*
    """,
    re.I | re.X,
)


def without_opening(answer: str) -> str:
    """The answer without an `Answer:` or an "According to the sources," in front of it."""
    match = _OPENING.match(answer)
    if match is None or not answer[match.end() :].strip():
        return answer
    rest = answer[match.end() :]
    return rest[0].upper() + rest[1:]


def leaks_prompt(sentence: str, source_texts: str) -> bool:
    """Whether a sentence shows the prompt's text and not that of a source."""
    match = _LEAK.search(sentence)
    return match is not None and fold(match[0].strip()) not in fold(source_texts)


# -- profanity ----------------------------------------------------------------------------

# In these dictionaries, but also subjects that a document may treat.
_SUBJECTS = {
    *("sex", "sexual", "sexuality", "sexually", "suck", "sucks", "hoe", "tied up", "how to kill"),
    *("rectum", "anus", "nipple", "breasts", "negro", "taste my", "tongue in a", "snowballing"),
    *("aborto", "camisinha", "cocaina", "heroina", "lolita", "pau", "transar", "bicha", "virgin"),
    *("domination", "strip", "threesome", "tight", "topless", "erotic", "nude", "nudity", "kill"),
}


@lru_cache(maxsize=1)
def _profane() -> re.Pattern[str]:
    loader = DictionaryLoader()
    words = {
        fold(word)
        for language in ("english", "portuguese")
        for word in loader.get_words(language)
        if len(word) > 2
    }
    chosen = sorted(words - _SUBJECTS, key=len, reverse=True)
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, chosen)) + r")(?!\w)")


def mask_profanity(text: str, allowed: str) -> tuple[str, int]:
    """Profane words that `allowed` (the sources) does not hold become asterisks; how many."""
    folded = fold_in_place(text)
    found = list(_profane().finditer(folded))
    held = fold(allowed) if found else ""
    count = 0
    for match in reversed(found):
        if re.search(rf"(?<!\w){re.escape(match[0])}(?!\w)", held):
            continue
        text = text[: match.start()] + "***" + text[match.end() :]
        count += 1
    return text, count


# -- Markdown -----------------------------------------------------------------------------

_PARSER = MarkdownIt("commonmark")
_MAYBE_ACTIVE = re.compile(r"<|!\[|\]\s*[(:\[]|&#|&\w+;")
_CODE = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]+`)", re.S)
_HTML_TAG = re.compile(
    r"<(?:/?[A-Za-z!?][^<>]*>|!--.*?-->|script\b.*?(?:</script>|$))", re.S | re.I
)
_IMAGE = re.compile(r"!\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])?")
_LINK = re.compile(r"\[([^\]]*)\]\(\s*<?([^)\s>]*)>?[^)]*\)")
_REFERENCE = re.compile(r"^ {0,3}\[(?!\d+\])[^\]]+\]:\s*\S+.*$", re.M)
_AUTOLINK = re.compile(r"<((?:[a-z][a-z0-9+.-]*:)[^<>\s]*)>", re.I)


def safe_markdown(text: str, source_texts: str) -> tuple[str, list[str]]:
    """The text with nothing active in it, and what was taken out.

    Raw HTML and images go (an image's address is fetched unasked, so it can carry data out);
    links stay only if they are http(s) and a source holds them. Code stays as it is. What
    remains is read by a Markdown parser; if it still finds anything active, every character
    that could start it is escaped.
    """
    if not _MAYBE_ACTIVE.search(text):
        return text, []
    removed: set[str] = set()

    def link(match: re.Match[str]) -> str:
        if _allowed(match[2], source_texts):
            return match[0]
        removed.add("link")
        return match[1]

    def autolink(match: re.Match[str]) -> str:
        if _allowed(match[1], source_texts):
            return match[1]
        removed.add("link")
        return ""

    def clean(part: str) -> str:
        if _IMAGE.search(part):
            removed.add("image")
            part = _IMAGE.sub(lambda match: match[1], part)
        part = _AUTOLINK.sub(autolink, part)
        part = _LINK.sub(link, part)
        if _REFERENCE.search(part):
            removed.add("link")
            part = _REFERENCE.sub("", part)
        if _HTML_TAG.search(part):
            removed.add("html")
            part = nh3.clean(part, tags=set(), clean_content_tags={"script", "style"})
        return part

    parts = _CODE.split(text)
    text = "".join(part if index % 2 else clean(part) for index, part in enumerate(parts))
    if _is_active(_PARSER.parse(text), source_texts):
        removed.add("markup")
        text = re.sub(r"([<\[\]!])(?!\d+\])(?<!\[\d\])", r"\\\1", text)
        if _is_active(_PARSER.parse(text), source_texts):
            text = re.sub(r"[<>\[\]!`&]", " ", text)
    return text, sorted(removed)


def _allowed(url: str, source_texts: str) -> bool:
    return urlsplit(url).scheme in ("http", "https") and url in source_texts


def _is_active(tokens: Iterable[Token], source_texts: str) -> bool:
    for token in tokens:
        if token.type in ("html_block", "html_inline", "image"):
            return True
        if token.type == "link_open" and not _allowed(str(token.attrGet("href")), source_texts):
            return True
        if token.children and _is_active(token.children, source_texts):
            return True
    return False
