"""Without accents: in Portuguese "é" (is) becomes "e" (and)."""

import unicodedata

from services.query_preprocessing.text import CONTROL, INVISIBLE, REPEATED_MARK, STRAIGHT

NAMES = ("Unicode NFC", "invisible", "control", "quotes", "marks", "spaces")


def normalize(text):
    parts = unicodedata.normalize("NFD", text)
    texts = [text, "".join(char for char in parts if not unicodedata.combining(char))]
    texts.append(INVISIBLE.sub("", texts[-1]))
    texts.append(CONTROL.sub(" ", texts[-1]))
    texts.append(texts[-1].translate(STRAIGHT))
    texts.append(REPEATED_MARK.sub(r"\1", texts[-1]))
    texts.append(" ".join(texts[-1].split()))
    return texts[-1], [name for n, name in enumerate(NAMES) if texts[n] != texts[n + 1]]
