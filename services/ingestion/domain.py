"""What ingestion produces: passages, and the blocks of text they are made of."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["heading", "paragraph", "list", "code", "table"]


class BadDocument(Exception):
    """The document can not be read, and never will be. The message is for its owner."""


@dataclass(frozen=True)
class Block:
    """A piece of a document that has one form. `level` is 1 to 6 for headings, else 0."""

    kind: Kind
    text: str
    level: int = 0


@dataclass
class Parsed:
    """A document as blocks in reading order, with what it says about itself."""

    blocks: list[Block]
    title: str = ""
    language: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Passage:
    """The unit that is embedded, indexed, ranked and cited."""

    id: str
    document: str
    title: str
    heading: str
    position: int
    language: str
    tags: list[str]
    text: str


def index_text(passage: Passage) -> str:
    """The text that is embedded, keyword-indexed and reranked for a passage."""
    if not passage.title:
        return passage.text
    heading = f" — {passage.heading}" if passage.heading else ""
    return f"{passage.title}{heading}\n{passage.text}"


def slug(text: str) -> str:
    """Lower case, accents stripped, every run of other characters one hyphen.

    >>> slug("Quando ele abre: até 30 s?")
    'quando-ele-abre-ate-30-s'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
