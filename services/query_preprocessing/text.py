"""Text as typed into text that can be compared: Unicode, whitespace, words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

INVISIBLE = re.compile(
    # zero-width characters, direction marks, soft hyphen, byte order mark, variation selectors
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    r"\u2066-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f]"
)
"""Characters that nobody sees and every comparison stumbles over."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""Breaks that are no spaces: tabs, line ends, bells."""
STRAIGHT = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "‛": "'", "′": "'", "`": "`", "´": "'",
        "“": '"', "”": '"', "„": '"', "‟": '"', "″": '"', "«": '"', "»": '"',
        "‐": "-", "‑": "-", "‒": "-", "−": "-", "…": "...",
    }
)  # fmt: skip
"""For `str.translate`: curly quotes, odd hyphens and the ellipsis to those of a keyboard."""
REPEATED_MARK = re.compile(r"([?!])[?!]+")
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
"""A run of letters, with an apostrophe inside (`don't`)."""


def normalize(text: str) -> tuple[str, list[str]]:
    """NFC, straight quotes, single spaces, nothing invisible; and the names of what changed."""
    changes = []
    for name, change in (
        ("Unicode NFC", lambda t: unicodedata.normalize("NFC", t)),
        ("invisible characters removed", lambda t: INVISIBLE.sub("", t)),
        ("control characters replaced", lambda t: CONTROL.sub(" ", t)),
        ("quotes and dashes made plain", lambda t: t.translate(STRAIGHT)),
        ("repeated marks", lambda t: REPEATED_MARK.sub(r"\1", t)),
        ("whitespace", lambda t: " ".join(t.split())),
    ):
        changed = change(text)
        if changed != text:
            changes.append(name)
            text = changed
    return text, changes


Normalize = Callable[[str], tuple[str, list[str]]]
"""A typed text → the clean one, and the names of what changed."""


def fold(text: str) -> str:
    """Lower case without accents."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.lower())
    return "".join(char for char in plain if not unicodedata.combining(char))
