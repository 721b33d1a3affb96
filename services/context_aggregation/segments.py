"""A passage's text as units: sentences, list items, and blocks that are never cut."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+")
_TABLE = re.compile(r"^\s*\|")
# Each run of marks is tried once, from its first: a line of a million dots must not take hours.
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_`]*+(?=\s[\"'“‘«(\[*_`¿¡]*[A-ZÀ-ÖØ-Þ0-9])")
_CODE = re.compile(r"`[^`]+`")
# A point after these does not end a sentence; single capitals are initials ("M. Nygard").
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[])(?:(?-i:[A-Z])|e\.g|i\.e|etc|vs|cf|al|approx|fig|eq|vol|ch|pp?|ed|eds|dr|mr|mrs"
    r"|prof|inc|ltd|p\. ex|sr|sra|srta|cap|séc|aprox|núm|nº|pág|págs|tel)\.$",
    re.IGNORECASE,
)
_LONGEST = 10  # characters of the longest abbreviation, and what stands before it
# A sentence that opens like this leans on the one before it.
_LEANS = re.compile(
    r"^[*_`\"“]*(?:it|its|they|their|this|these|that|those|he|she|such|so|then|thus|hence|therefore"
    r"|however|but|instead|otherwise|both|either|neither|the (?:same|former|latter|first|second"
    r"|third|other)|for example|for instance|in that case"
    r"|ele|ela|eles|elas|isso|isto|esse|essa|esses|essas|este|esta|estes|estas|seu|sua|seus|suas"
    r"|assim|então|portanto|logo|porém|mas|contudo|já|ambos|ambas|o mesmo|a mesma|o primeiro"
    r"|a primeira|o segundo|a segunda|por isso|por exemplo|nesse caso|neste caso|caso contrário)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part of a passage that is kept or dropped, never cut.

    `joint` is what stands between it and the unit before it; `needs` is the index of the unit
    without which it would not be understood, or None.
    """

    text: str
    joint: str
    needs: int | None
    block: bool = False

    @property
    def words(self) -> int:
        """Words between white space."""
        return len(self.text.split())


def sentences(text: str) -> list[str]:
    """Sentences of one paragraph, in order; their texts together are the paragraph's words."""
    flat = " ".join(text.split())
    # Stops inside code are no ends; letters stand in for them so that places stay the same.
    masked = _CODE.sub(lambda match: "x" * len(match[0]), flat)
    found, start = [], 0
    for match in _END.finditer(masked):
        stop = match.start() + 1
        if match[0][0] == "." and _ABBREVIATION.search(masked, max(start, stop - _LONGEST), stop):
            continue
        found.append(flat[start : match.end()])
        start = match.end() + 1
    if start < len(flat):
        found.append(flat[start:])
    return found


def units(text: str) -> list[Unit]:
    """Units in reading order. Fenced code and tables are one unit each, whatever their length."""
    found: list[Unit] = []
    intro: int | None = None
    for kind, lines in _parts(text):
        if kind == "block":
            found.append(Unit("\n".join(lines), "\n", intro, block=True))
            continue
        for position, sentence in enumerate(sentences("\n".join(lines))):
            first = position == 0
            needs: int | None = None
            if first:
                needs = intro if kind == "item" else None
            elif kind == "item" or _LEANS.match(sentence):
                needs = len(found) - 1
            found.append(Unit(sentence, "\n" if first else " ", needs))
        if kind == "paragraph":
            # "The steps are:" belongs to every item of the list that follows.
            intro = len(found) - 1 if found and found[-1].text.endswith(":") else None
    return found


def join(chosen: list[Unit]) -> str:
    """The text of units that are in reading order."""
    text, after_block = "", False
    for unit in chosen:
        # A fence closes only at the end of its line: what follows a block starts a new one.
        joint = below(text, unit.text) if after_block else unit.joint
        text += (joint if text else "") + unit.text
        after_block = unit.block
    return text


def below(text: str, more: str) -> str:
    """What to write between a text and one that begins on a line of its own.

    A table right below another would be read as more of its rows.
    """
    last = text.rpartition("\n")[2]
    return "\n\n" if _TABLE.match(last) and _TABLE.match(more) else "\n"


def _parts(text: str) -> list[tuple[str, list[str]]]:
    """Runs of lines: `paragraph`, `item` (of a list) and `block` (fenced code, table)."""
    parts: list[tuple[str, list[str]]] = []
    fence: str | None = None
    for line in text.splitlines():
        if fence is not None:
            parts[-1][1].append(line)
            if line.strip().startswith(fence):
                fence = None
        elif match := _FENCE.match(line):
            fence = match[1]
            parts.append(("block", [line]))
        elif not line.strip():
            parts.append(("gap", []))
        elif _TABLE.match(line):
            if parts and parts[-1][0] == "block" and _TABLE.match(parts[-1][1][0]):
                parts[-1][1].append(line)
            else:
                parts.append(("block", [line]))
        elif _ITEM.match(line):
            parts.append(("item", [line]))
        elif parts and parts[-1][0] in ("paragraph", "item"):
            parts[-1][1].append(line)
        else:
            parts.append(("paragraph", [line]))
    return [part for part in parts if part[0] != "gap"]
